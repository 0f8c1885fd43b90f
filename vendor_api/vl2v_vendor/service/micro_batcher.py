"""One lane to the model: items of many requests, bounded, in turn by API key, run together in batches.

A request is split over as many batches as it needs. What its waiter gave up on leaves the queue at once. A batch that
fails is halved until the culprit stands alone, so that a failure reaches only its owners; the halves take turns with
fresh batches, so that they hold up nobody else for long.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias

from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable, Overloaded, Unavailable
from vl2v_vendor.service.fair_queue import Entry, FairQueue, In, Out, QueuedRequest
from vl2v_vendor.service.stage_clock import record

BatchObserver: TypeAlias = Callable[[int, float], None]
"""Told the items of a batch that was encoded, and the seconds that the model took."""

_FORESIGHT: Final = 0.5
"""What would have to wait longer than this part of the longest wait is refused on arrival."""
_LONGEST_RETRY_SECONDS: Final = 60
_SHARE_OF_NEWEST: Final = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """The bounds of one lane.

    Attributes:
        batch_items: items in one batch.
        queued_items: items that may wait.
        queued_bytes: bytes of the items that may wait.
        wait_seconds: how long a request may wait without any of its items moving.
    """

    batch_items: int
    queued_items: int
    queued_bytes: int
    wait_seconds: float


class MicroBatcher(Generic[In, Out]):
    """A lane. A `BatchScheduler` says when it may run its next batch.

    Args:
        run: runs one batch and returns one output per item, in order.
        limits: the lane's bounds.
        size_of: bytes of an item.
        changed: set when there is more to run.
        observe: told of every batch that was encoded.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        limits: LaneLimits,
        *,
        size_of: Callable[[In], int],
        changed: asyncio.Event,
        observe: BatchObserver,
    ) -> None:
        self._run = run
        self._limits = limits
        self._size_of = size_of
        self._changed = changed
        self._observe = observe
        self._queue = FairQueue[In, Out]()
        self._halves: deque[list[Entry[In, Out]]] = deque()
        self._ran_a_half = False
        self._items_in_model = 0
        self._seconds_per_item: float | None = None
        self._busy_since = 0.0

    @property
    def queued_items(self) -> int:
        """Items that wait for a batch."""
        return self._queue.items

    @property
    def queued_bytes(self) -> int:
        """Bytes of the items that wait for a batch."""
        return self._queue.size_bytes

    @property
    def has_work(self) -> bool:
        """Whether there is anything to run."""
        return bool(self._queue.items or self._halves)

    @property
    def has_full_batch(self) -> bool:
        """Whether waiting longer would not make the next batch larger."""
        return bool(self._halves) or self._queue.items >= self._limits.batch_items

    def check_room(self, items: int, size_bytes: int, key: str | None = None) -> None:
        """Check that so much more may wait.

        Args:
            items: how many.
            size_bytes: bytes of all of them.
            key: whose they would be; None checks the bounds in items and bytes alone.

        Raises:
            Overloaded: it may not; `retry_after_seconds` is estimated from the queue and the lane's pace.
        """
        queue, limits = self._queue, self._limits
        if queue.items + items > limits.queued_items or queue.size_bytes + size_bytes > limits.queued_bytes:
            raise self._overloaded(f"{queue.items} items are waiting already, and the queue has no room")
        if key is not None and self._seconds_ahead(key) > _FORESIGHT * limits.wait_seconds:
            raise self._overloaded(f"{queue.items} items are waiting already, more than are encoded in time")

    async def submit(self, items: Sequence[In], key: str = "") -> list[Out | Exception]:
        """Queue the items of one request and wait for all of them: one output or error each, in order.

        Its time is recorded on the request's stage clock: `queue` until the model began the last of its batches,
        `forward` from there on.

        Raises:
            Overloaded: there is no room and nothing was queued, or nothing of the request moved for too long.
            ModelUnavailable: the model died, or the server is shutting down.
        """
        if not items:
            return []
        sizes = [self._size_of(item) for item in items]
        self.check_room(len(items), sum(sizes), key)
        request = QueuedRequest[Out](key, len(items), time.monotonic())
        entries = [
            Entry(item, size, request, index) for index, (item, size) in enumerate(zip(items, sizes, strict=True))
        ]
        if not self.has_work and not self._items_in_model:
            self._busy_since = request.submitted
        self._queue.push(entries)
        self._changed.set()
        expiry = _Expiry(request, self._limits.wait_seconds, self._overloaded)
        try:
            await request.done
        finally:
            expiry.cancel()
            self._queue.discard(entries)
            self._changed.set()
            _record_stages(request)
        return request.outcomes

    def take(self) -> list[Entry[In, Out]]:
        """The next batch: fresh items, or half of a batch that failed; empty if nobody waits for it any more."""
        self._ran_a_half = bool(self._halves) and not (self._ran_a_half and self._queue.items)
        batch = self._halves.popleft() if self._ran_a_half else self._queue.take(self._limits.batch_items)
        batch = [entry for entry in batch if not entry.request.is_over]
        self._items_in_model += len(batch)
        for entry in batch:
            entry.request.items_in_model += 1
        return batch

    def begin(self, batch: Sequence[Entry[In, Out]]) -> None:
        """Note that the model begins a batch now."""
        now = time.monotonic()
        for entry in batch:
            entry.request.last_began = entry.request.waits_since = now

    async def run(self, batch: Sequence[Entry[In, Out]]) -> bool:
        """Run a batch and give every waiter its output or its error; false if the model gave nothing."""
        try:
            outputs = await self._run([entry.item for entry in batch])
            if len(outputs) != len(batch):
                raise EncodingFailed(f"{len(batch)} items went in and {len(outputs)} vectors came out")
        except Unavailable as error:
            _refuse(batch, error)
        except Exception as error:
            # Any error, or its waiters would never hear of it.
            self._split(batch, error)
        else:
            for entry, output in zip(batch, outputs, strict=True):
                entry.request.settle(entry.index, output)
            return True
        return False

    def end(self, batch: Sequence[Entry[In, Out]], seconds: float | None) -> None:
        """Note that a batch is over, after the seconds that the model took for it; None if it gave nothing."""
        now = time.monotonic()
        self._items_in_model -= len(batch)
        for entry in batch:
            entry.request.items_in_model -= 1
            entry.request.waits_since = now
        if seconds is not None:
            self._learn_pace((now - self._busy_since) / len(batch))
            self._observe(len(batch), seconds)
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

    def _learn_pace(self, seconds_per_item: float) -> None:
        """Average over the latest batches; the turns of the other lane are in it."""
        before = seconds_per_item if self._seconds_per_item is None else self._seconds_per_item
        self._seconds_per_item = before + _SHARE_OF_NEWEST * (seconds_per_item - before)

    def _seconds_ahead(self, key: str) -> float:
        """How long the next item of `key` is likely to wait."""
        return self._queue.items_ahead(key) * (self._seconds_per_item or 0.0)

    def _overloaded(self, what: str) -> Overloaded:
        """A refusal that asks to come back when half of what waits will be done."""
        seconds = math.ceil(self._queue.items / 2 * (self._seconds_per_item or 0.0))
        return Overloaded(
            f"{what}; nothing was billed, try again in a moment", min(max(seconds, 1), _LONGEST_RETRY_SECONDS)
        )


class _Expiry(Generic[Out]):
    """Refuses a request of which nothing moved for too long."""

    def __init__(
        self, request: QueuedRequest[Out], wait_seconds: float, overloaded: Callable[[str], Overloaded]
    ) -> None:
        self._request = request
        self._wait_seconds = wait_seconds
        self._overloaded = overloaded
        self._timer = asyncio.get_running_loop().call_later(wait_seconds, self._check)

    def cancel(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        rest = self._wait_seconds - (time.monotonic() - self._request.waits_since)
        if rest > 0 or self._request.items_in_model:
            delay = rest if rest > 0 else self._wait_seconds
            self._timer = asyncio.get_running_loop().call_later(delay, self._check)
        else:
            self._request.refuse(self._overloaded(f"the request waited {self._wait_seconds:g} seconds for the model"))


def _refuse(batch: Sequence[Entry[In, Out]], error: Exception) -> None:
    for entry in batch:
        entry.request.refuse(error)


def _record_stages(request: QueuedRequest[Out]) -> None:
    now = time.monotonic()
    began = now if request.last_began is None else request.last_began
    record("queue", began - request.submitted)
    if request.last_began is not None:
        record("forward", now - began)
