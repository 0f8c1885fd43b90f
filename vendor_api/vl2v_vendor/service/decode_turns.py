"""The threads that decode, in turn by account.

Each account has a line of its own, first come first served, under its id or another key. The next item is one of the
account whose items had the fewest pixels so far, so that many or large items of one account delay another by what is in
work, and by no more.

A large image takes a thread for long, and much memory: all of them together take at most all threads but one, and a
number of bytes. Everything here runs in the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

from vl2v_vendor.domain.encoder import MEBIBYTE

_T = TypeVar("_T")

SMALL_PIXELS: Final = 2_000_000
"""An image of more pixels is a large one."""

BYTES_PER_PIXEL: Final = 16
"""Memory that decoding takes at most; see `image_decoding`."""


@dataclass(eq=False, slots=True)
class _Job:
    """One item that is to be decoded; `work` is known once it lies in the pool."""

    pixels: int
    decode: Callable[[], Any]
    done: asyncio.Future[Any]
    work: Future[Any] | None = None

    @property
    def is_large(self) -> bool:
        return self.pixels > SMALL_PIXELS


@dataclass(eq=False, slots=True)
class _Line:
    """The items of one key: those that wait, and the pixels of those that began."""

    begun_pixels: int
    waiting: deque[_Job] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class DecodeTurns:
    """Decodes in a pool of `threads`, in turn by key.

    Attributes:
        max_large_bytes: Memory for the large images in work; one alone may take more.
    """

    executor: Executor
    threads: int
    max_large_bytes: int = 1024 * MEBIBYTE
    _lines: dict[str, _Line] = field(init=False, default_factory=dict)
    _passed_pixels: int = field(init=False, default=0)
    """Where the line of the item that began last stood: a new line begins there, whatever the others had before."""
    _in_work: int = field(init=False, default=0)
    _large: list[_Job] = field(init=False, default_factory=list)

    async def run(self, key: str, pixels: int, decode: Callable[[], _T]) -> _T:
        """Run `decode` in a thread when it is the key's turn; it counts as an item of so many pixels.

        Raises:
            Exception: What `decode` raised.
        """
        line = self._lines.setdefault(key, _Line(self._passed_pixels))
        job = _Job(pixels, decode, asyncio.get_running_loop().create_future())
        line.waiting.append(job)
        self._begin()
        try:
            return cast("_T", await job.done)
        except asyncio.CancelledError:
            if job.work is None:
                line.waiting.remove(job)
            else:
                job.work.cancel()  # unless its thread has begun
            raise

    def give_back(self, key: str, pixels: int) -> None:
        """Take pixels off what the key had: its item turned out smaller."""
        if key in self._lines:
            self._lines[key].begun_pixels -= pixels

    def _begin(self) -> None:
        """Begin what may begin. As many again as there are threads may lie ready, so that none waits for this loop."""
        loop = asyncio.get_running_loop()
        while self._in_work < 2 * self.threads and (line := self._next_line()) is not None:
            job = line.waiting.popleft()
            job.work = self.executor.submit(job.decode)
            finish = partial(self._finish, job)
            job.work.add_done_callback(partial(loop.call_soon_threadsafe, finish))
            self._passed_pixels = max(self._passed_pixels, line.begun_pixels)
            line.begun_pixels += job.pixels
            self._in_work += 1
            if job.is_large:
                self._large.append(job)

    def _next_line(self) -> _Line | None:
        """Choose the line whose first item begins next; None if none may."""
        large_pixels = sum(job.pixels for job in self._large)
        has_room = len(self._large) < max(1, self.threads - 1)
        for line in sorted(self._lines.values(), key=lambda line: line.begun_pixels):
            if not line.waiting:
                continue
            job = line.waiting[0]
            if not job.is_large:
                return line
            fits = BYTES_PER_PIXEL * (large_pixels + job.pixels) <= self.max_large_bytes
            if has_room and (fits or not self._large):
                return line
            has_room = False  # whatever large one comes after it has to wait behind it
        return None

    def _finish(self, job: _Job, work: Future[Any]) -> None:
        """Hand over what became of an item; its thread is free only now, also if its client has left long before."""
        self._in_work -= 1
        if job.is_large:
            self._large.remove(job)
        if not job.done.done():
            if (error := work.exception()) is None:
                job.done.set_result(work.result())
            else:
                job.done.set_exception(error)
        self._begin()
        if self._in_work == 0:  # nothing waits either
            self._lines.clear()
