"""One lane over a model that a test opens batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vl2v_vendor.domain.errors import EncodingFailed
from vl2v_vendor.engine.queue.lanes import BatchScheduler
from vl2v_vendor.engine.queue.micro_batcher import LaneLimits, MicroBatcher

Batcher = MicroBatcher[int, int]

LIMITS = LaneLimits(batch_items=4, queued_items=1000, wait_seconds=60)


@dataclass
class Gate:
    """A batch function that lets a batch through for every permit; it doubles numbers and remembers its batches."""

    batches: list[list[int]] = field(default_factory=list)
    seen: list[tuple[int, float]] = field(default_factory=list)
    permits: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    model: asyncio.Lock = field(default_factory=asyncio.Lock)
    seconds: float = 0.0

    def open(self, batches: int = 1000) -> None:
        for _ in range(batches):
            self.permits.release()

    async def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        async with self.model:
            await self.permits.acquire()
            await asyncio.sleep(self.seconds)
        if any(item < 0 for item in items):
            raise EncodingFailed("negative")
        return [2 * item for item in items]

    async def until(self, batches: int) -> None:
        """Wait until so many batches have begun or are ready, and nothing else moves."""
        while len(self.batches) < batches:
            await asyncio.sleep(0)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def gated_lane(limits: LaneLimits = LIMITS) -> AsyncIterator[tuple[Batcher, Gate]]:
    """Open one lane behind a gate for at most ten seconds; the gate remembers what the lane's observer saw."""
    gate, changed = Gate(), asyncio.Event()
    lane = Batcher(gate.run, limits, changed)
    lane.observe = lambda items, seconds: gate.seen.append((items, seconds))
    scheduler = BatchScheduler([lane], changed)
    scheduler.start()
    try:
        async with asyncio.timeout(10):
            yield lane, gate
    finally:
        await scheduler.close()


def submit(lane: Batcher, items: Sequence[int], key: str = "") -> asyncio.Task[list[int | Exception]]:
    return asyncio.create_task(lane.submit(items, key))
