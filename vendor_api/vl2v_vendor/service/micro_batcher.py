"""Items of many requests, run together in batches.

There is no wait timer: a batch is whatever is ready when the runner is free, so an idle server answers at once and a
busy one fills its batches by itself. The queue is bounded in items. Requests larger than a batch are split; what
their waiters gave up on is dropped before it runs; and a failing batch is halved until the culprit stands alone, so
that a failure reaches only its owners.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable, Overloaded, Unavailable

In = TypeVar("In")
Out = TypeVar("Out")


class _Entry(NamedTuple, Generic[In, Out]):
    item: In
    waiter: asyncio.Future[Out]


class MicroBatcher(Generic[In, Out]):
    """A bounded queue in front of `run`, which takes a batch and returns one output per item, in order.

    Args:
        run: runs one batch; called for one batch at a time.
        max_batch_items: items in one batch.
        max_queued_items: items that may wait.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        max_batch_items: int,
        max_queued_items: int,
    ) -> None:
        self._run = run
        self._max_batch_items = max_batch_items
        self._max_queued_items = max_queued_items
        self._queue: deque[_Entry[In, Out]] = deque()
        self._filled = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def queued_items(self) -> int:
        """Items that wait for a batch."""
        return len(self._queue)

    def start(self) -> None:
        """Start taking batches; needs a running event loop."""
        self._worker = asyncio.create_task(self._work(), name="micro-batcher")

    async def close(self) -> None:
        """Stop; whatever still waits fails with ModelUnavailable."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        _fail(self._queue, ModelUnavailable("the server is shutting down"))
        self._queue.clear()

    async def submit(self, items: Sequence[In]) -> list[Out | Exception]:
        """Queue `items` and wait for all of them: one output or error each, in order.

        Raises:
            Overloaded: the queue has no room; nothing was queued.
        """
        if len(self._queue) + len(items) > self._max_queued_items:
            raise Overloaded(f"{len(self._queue)} items are waiting already; try again in a moment")
        loop = asyncio.get_running_loop()
        entries = [_Entry[In, Out](item, loop.create_future()) for item in items]
        self._queue.extend(entries)
        self._filled.set()
        outcomes = await asyncio.gather(*(entry.waiter for entry in entries), return_exceptions=True)
        return [_output_or_error(outcome) for outcome in outcomes]

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            batch = self._take()
            if not batch:
                self._filled.clear()
                continue
            try:
                await self._settle(batch)
            finally:
                # Cancelled in mid-batch: nobody may wait for ever.
                _fail(batch, ModelUnavailable("the server is shutting down"))

    def _take(self) -> list[_Entry[In, Out]]:
        batch: list[_Entry[In, Out]] = []
        while self._queue and len(batch) < self._max_batch_items:
            entry = self._queue.popleft()
            if not entry.waiter.done():
                batch.append(entry)
        return batch

    async def _settle(self, batch: Sequence[_Entry[In, Out]]) -> None:
        """Run a batch and give every waiter its output or its error."""
        try:
            outputs = await self._run([entry.item for entry in batch])
            if len(outputs) != len(batch):
                raise EncodingFailed(f"{len(batch)} items went in and {len(outputs)} vectors came out")
        except Unavailable as error:
            _fail(batch, error)
        except Exception as error:
            # Any error, or the worker would end and everybody after this batch would hang.
            if len(batch) == 1:
                _fail(batch, error)
                return
            middle = len(batch) // 2
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
        else:
            for entry, output in zip(batch, outputs, strict=True):
                if not entry.waiter.done():
                    entry.waiter.set_result(output)


def _fail(entries: Sequence[_Entry[In, Out]], error: Exception) -> None:
    for entry in entries:
        if not entry.waiter.done():
            entry.waiter.set_exception(error)


def _output_or_error(outcome: Out | BaseException) -> Out | Exception:
    if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
        raise outcome
    return outcome
