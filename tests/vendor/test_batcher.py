"""The micro-batcher: takes what is ready, splits, bounds, isolates, and lets nobody wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable, Overloaded
from vl2v_vendor.service.micro_batcher import MicroBatcher

Batcher = MicroBatcher[int, int]


class Gate:
    """A batch function that a test opens; it doubles numbers and remembers its batches."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.opened = asyncio.Event()
        if is_open:
            self.opened.set()

    async def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        await self.opened.wait()
        if any(item < 0 for item in items):
            raise EncodingFailed("negative")
        return [2 * item for item in items]


def tell(story: Callable[[Batcher, Gate], Awaitable[None]], *, is_open: bool = False) -> None:
    async def told() -> None:
        gate = Gate(is_open=is_open)
        batcher = Batcher(gate.run, max_batch_items=4, max_queued_items=10)
        batcher.start()
        try:
            async with asyncio.timeout(10):
                await story(batcher, gate)
        finally:
            await batcher.close()

    asyncio.run(told())


def test_an_idle_batcher_answers_at_once_and_a_busy_one_fills_its_batches() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        first = asyncio.create_task(batcher.submit([1]))
        await gate.started.wait()
        others = [asyncio.create_task(batcher.submit([n])) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        gate.opened.set()
        assert await first == [2]
        assert await asyncio.gather(*others) == [[4], [6], [8]]
        assert gate.batches == [[1], [2, 3, 4]]

    tell(story)


def test_a_large_request_is_split_and_comes_back_in_order() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        assert await batcher.submit(range(9)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
        assert [len(batch) for batch in gate.batches] == [4, 4, 1]

    tell(story, is_open=True)


def test_a_failure_reaches_only_its_owner() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        good, bad = await asyncio.gather(batcher.submit([1, 2]), batcher.submit([-3, 4]))
        assert good == [2, 4]
        assert isinstance(bad[0], EncodingFailed)
        assert bad[1] == 8
        assert await batcher.submit([5]) == [10]

    tell(story, is_open=True)


def test_a_full_queue_refuses_at_once() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        running = asyncio.create_task(batcher.submit([1]))
        await gate.started.wait()
        waiting = asyncio.create_task(batcher.submit(range(10)))
        await asyncio.sleep(0)
        assert batcher.queued_items == 10
        with pytest.raises(Overloaded):
            await batcher.submit([2])
        gate.opened.set()
        await asyncio.gather(running, waiting)

    tell(story)


def test_work_that_nobody_waits_for_is_dropped_before_it_runs() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        running = asyncio.create_task(batcher.submit([1]))
        await gate.started.wait()
        vanished = asyncio.create_task(batcher.submit([2, 3]))
        patient = asyncio.create_task(batcher.submit([4]))
        await asyncio.sleep(0)
        vanished.cancel()
        await asyncio.gather(vanished, return_exceptions=True)
        gate.opened.set()
        assert await running == [2]
        assert await patient == [8]
        assert gate.batches == [[1], [4]]

    tell(story)


def test_closing_tells_everybody_who_waits() -> None:
    async def story(batcher: Batcher, gate: Gate) -> None:
        running = asyncio.create_task(batcher.submit([1]))
        await gate.started.wait()
        waiting = asyncio.create_task(batcher.submit([2]))
        await asyncio.sleep(0)
        await batcher.close()
        for outcomes in await asyncio.gather(running, waiting):
            assert isinstance(outcomes[0], ModelUnavailable)

    tell(story)


def test_a_missing_output_is_a_failure_and_not_a_shift() -> None:
    async def story() -> None:
        async def lose_one(items: Sequence[int]) -> list[int]:
            return [item for item in items if item != 2]

        batcher = Batcher(lose_one, max_batch_items=4, max_queued_items=10)
        batcher.start()
        outcomes = await batcher.submit([1, 2, 3])
        await batcher.close()
        assert outcomes[0] == 1
        assert isinstance(outcomes[1], EncodingFailed)
        assert outcomes[2] == 3

    asyncio.run(story())
