"""One lane to the model: items of many requests, bounded, in turn by account, run together in batches.

A request is split over as many batches as it needs. What its waiter gave up on leaves the queue at once. A batch that
fails is halved until the culprit stands alone, so that a failure reaches only its owners; the halves take turns with
fresh batches, so that they hold up nobody else for long.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, cast

from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable, Overloaded, Unavailable
from vl2v_vendor.engine.queue.fair_queue import Entry, FairQueue, In, Out, QueuedRequest
from vl2v_vendor.observe.request_trace import record

_FORESIGHT: Final = 0.5
"""What would have to wait longer than this part of the longest wait is refused on arrival."""
_LONGEST_RETRY_SECONDS: Final = 60
_SHARE_OF_NEWEST: Final = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """The bounds of one lane; a request waits so many seconds at most without any of its items moving."""

    batch_items: int
    queued_items: int
    wait_seconds: float


class MicroBatcher(Generic[In, Out]):
    """A lane. A `BatchScheduler` says when it may run its next batch.

    Attributes:
        observe: Called after every batch that was encoded, with its items and the seconds that the model took.
    """

    def __init__(
        self, run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]], limits: LaneLimits, changed: asyncio.Event
    ) -> None:
        self._run = run
        self._limits = limits
        self._changed = changed
        self._queue = FairQueue[In, Out]()
        self._halves: deque[list[Entry[In, Out]]] = deque()
        self._ran_a_half = False
        self._items_in_model = 0
        self._seconds_per_item: float | None = None
        self._busy_since = 0.0
        self.observe: Callable[[int, float], None] | None = None
        self._reserved: Counter[str] = Counter()

    @property
    def queued_items(self) -> int:
        """Number of items that wait for a batch."""
        return self._queue.items

    @property
    def reserved_items(self) -> int:
        """Number of items that have room in the queue and are not queued yet."""
        return self._reserved.total()

    @property
    def has_work(self) -> bool:
        """Whether there is anything to run."""
        return bool(self._queue.items or self._halves)

    @property
    def has_full_batch(self) -> bool:
        """Whether waiting longer would not make the next batch larger."""
        return bool(self._halves) or self._queue.items >= self._limits.batch_items

    def check_room(self, items: int, key: str | None = None) -> None:
        """Check that so many more items may wait, beside those that have their room reserved.

        Args:
            items: Number of items.
            key: Account whose items they would be. With it, what cannot be encoded in time is refused too, and what is
                more than half of the room that other accounts leave, or than a batch, if this one has some already.

        Raises:
            Overloaded: They may not; `retry_after_seconds` is estimated from the queue and the lane's pace.
        """
        queue, limits, pace = self._queue, self._limits, self._seconds_per_item or 0.0
        held = queue.items + self.reserved_items
        if held + items > limits.queued_items:
            raise self._overloaded(f"{queue.items} items are waiting already, and the queue has no room")
        if key is None:
            return
        own = queue.items_of(key) + self._reserved[key]
        share = max((limits.queued_items - (held - own)) // 2, limits.batch_items)
        if own and own + items > share:
            raise self._overloaded(f"{own} items of this account are waiting already, and others need room too")
        if queue.items_ahead(key) * pace > _FORESIGHT * limits.wait_seconds:
            raise self._overloaded(f"{queue.items} items are waiting already, more than are encoded in time")

    @contextmanager
    def reserve(self, items: int, key: str) -> Iterator[None]:
        """Keep room in the queue for the items of one request while they are prepared; raises as `check_room`."""
        self.check_room(items, key)
        self._reserved[key] += items
        try:
            yield
        finally:
            self._reserved[key] -= items
            if not self._reserved[key]:
                del self._reserved[key]

    async def submit(self, items: Sequence[In], key: str = "") -> list[Out | Exception]:
        """Queue the items of one request and wait for all of them: one output or error each, in order.

        Its time is recorded in the request's trace: `queue` until the model began the last of its batches, `forward`
        from there on. Room for the items must have been reserved.

        Raises:
            Overloaded: Nothing of the request moved for too long.
            ModelUnavailable: The model died, or the server is shutting down.
        """
        if not items:
            return []
        request = QueuedRequest[Out](key, len(items))
        entries = [Entry(item, request, index) for index, item in enumerate(items)]
        if not self.has_work and not self._items_in_model:
            self._busy_since = request.submitted
        self._queue.push(entries)
        self._changed.set()
        try:
            async with request.idle_limit:
                request.move(0, self._limits.wait_seconds)
                await request.done
        except TimeoutError:
            raise self._overloaded(f"the request waited {self._limits.wait_seconds:g} seconds for the model") from None
        finally:
            self._queue.discard(entries)
            self._changed.set()
            now = time.monotonic()
            began = request.last_began or now
            record("queue", began - request.submitted)
            if request.last_began is not None:
                record("forward", now - began)
        return cast("list[Out | Exception]", request.outcomes)

    def take(self) -> list[Entry[In, Out]]:
        """Take the next batch: fresh items, or half of a failed batch; empty if nobody waits for it any more."""
        self._ran_a_half = bool(self._halves) and not (self._ran_a_half and self._queue.items)
        batch = self._halves.popleft() if self._ran_a_half else self._queue.take(self._limits.batch_items)
        batch = [entry for entry in batch if not entry.request.done.done()]
        self._items_in_model += len(batch)
        for entry in batch:
            entry.request.move(1, self._limits.wait_seconds)
        return batch

    async def run(self, batch: Sequence[Entry[In, Out]]) -> bool:
        """Run a batch and give every waiter its output or its error; false if the model gave nothing."""
        try:
            outputs = await self._run([entry.item for entry in batch])
        except Unavailable as error:
            _refuse(batch, error)
        except Exception as error:
            # Any error, or its waiters would never hear of it.
            self._split(batch, error)
        else:
            if len(outputs) == len(batch):
                for entry, output in zip(batch, outputs, strict=True):
                    entry.request.settle(entry.index, output)
                return True
            self._split(batch, EncodingFailed(f"{len(batch)} items went in and {len(outputs)} vectors came out"))
        return False

    def end(self, batch: Sequence[Entry[In, Out]], seconds: float | None) -> None:
        """Note that a batch is over, after the seconds that the model took for it; None if it gave nothing."""
        now = time.monotonic()
        self._items_in_model -= len(batch)
        for entry in batch:
            entry.request.move(-1, self._limits.wait_seconds)
        if seconds is not None:
            pace = (now - self._busy_since) / len(batch)  # the turns of the other lane are in it
            before = self._seconds_per_item or pace
            self._seconds_per_item = before + _SHARE_OF_NEWEST * (pace - before)
            if self.observe is not None:
                self.observe(len(batch), seconds)
        self._busy_since = now

    def close(self, running: Sequence[Entry[In, Out]]) -> None:
        """Refuse whatever still waits, and what was running: nobody may wait for ever."""
        error = ModelUnavailable("the server is shutting down; nothing was billed")
        for batch in (running, *self._halves, self._queue.take(self._queue.items)):
            _refuse(batch, error)
        self._halves.clear()

    def _split(self, batch: Sequence[Entry[In, Out]], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].request.settle(batch[0].index, error)
            return
        _log.warning("a batch of %d items failed and is run again in halves: %s", len(batch), error)
        middle = len(batch) // 2
        self._halves += [list(batch[:middle]), list(batch[middle:])]

    def _overloaded(self, what: str) -> Overloaded:
        """Build a refusal that asks to come back when half of what waits will be done."""
        seconds = max(math.ceil(self._queue.items / 2 * (self._seconds_per_item or 0.0)), 1)
        return Overloaded(f"{what}; nothing was billed, try again in a moment", min(seconds, _LONGEST_RETRY_SECONDS))


def _refuse(batch: Sequence[Entry[In, Out]], error: Exception) -> None:
    """Lose the requests of a batch as a whole, unless they are over."""
    for entry in batch:
        if not entry.request.done.done():
            entry.request.done.set_exception(error)
