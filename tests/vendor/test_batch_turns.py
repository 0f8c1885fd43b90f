"""Whose batch is next: what is ready, as late as possible, in turn by key and by lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from support.vendor.batch_gate import LIMITS, Batcher, gated_lane, settle, submit
from vl2v_vendor.domain.errors import EncodingFailed
from vl2v_vendor.engine.queue.lanes import BatchScheduler
from vl2v_vendor.observe.request_trace import start_trace

pytestmark = pytest.mark.anyio


async def test_an_idle_lane_answers_at_once_and_a_busy_one_fills_its_batches() -> None:
    async with gated_lane() as (lane, gate):
        first = submit(lane, [1])
        await gate.until(1)
        others = [submit(lane, [n]) for n in (2, 3, 4)]
        await settle()
        assert gate.batches == [[1]]  # the second batch may still grow
        gate.open()
        assert await first == [2]
        assert await asyncio.gather(*others) == [[4], [6], [8]]
        assert gate.batches == [[1], [2, 3, 4]]
    assert [items for items, _ in gate.seen] == [1, 3]


async def test_a_batch_that_cannot_grow_is_ready_before_the_model_is_free_and_only_one_is() -> None:
    async with gated_lane() as (lane, gate):
        everything = submit(lane, range(1, 13))
        await gate.until(2)
        assert gate.batches == [[1, 2, 3, 4], [5, 6, 7, 8]]
        gate.open(1)
        await gate.until(3)
        assert gate.batches[2] == [9, 10, 11, 12]
        gate.open()
        assert await everything == [2 * n for n in range(1, 13)]


async def test_a_large_request_is_split_and_comes_back_in_order() -> None:
    async with gated_lane() as (lane, gate):
        gate.open()
        assert await lane.submit(range(9)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
        assert [len(batch) for batch in gate.batches] == [4, 4, 1]


async def test_a_large_buyer_delays_a_single_item_by_two_batches() -> None:
    async with gated_lane() as (lane, gate):
        large = submit(lane, range(400), "large")
        await gate.until(2)
        gate.open(3)
        await gate.until(5)
        small = submit(lane, [777], "small")
        await settle()
        sent = len(gate.batches)  # one of these runs, one is ready
        gate.open(3)
        assert await small == [1554]
        assert 777 in gate.batches[sent]
        gate.open()
        await large


async def test_keys_take_turns_item_by_item() -> None:
    async with gated_lane() as (lane, gate):
        first = submit(lane, [0])
        await gate.until(1)
        everybody = [submit(lane, range(start, start + 6), str(start)) for start in (10, 20, 30)]
        gate.open()
        await asyncio.gather(first, *everybody)
        assert gate.batches[1:4] == [[10, 20, 30, 11], [21, 31, 12, 22], [32, 13, 23, 33]]


async def test_the_halves_of_a_failed_batch_take_turns_with_fresh_batches() -> None:
    async with gated_lane() as (lane, gate):
        failing = submit(lane, [-1, -2, -3, -4], "failing")
        await gate.until(1)
        other = submit(lane, range(16), "other")
        gate.open()
        assert await other == [2 * n for n in range(16)]
        assert all(isinstance(outcome, EncodingFailed) for outcome in await failing)
        is_fresh = [batch[0] >= 0 for batch in gate.batches[1:]]
        assert is_fresh[:7] == [True, False, True, False, True, False, True]


async def test_a_batch_that_is_ready_is_taken_back_when_everybody_in_it_is_gone() -> None:
    async with gated_lane() as (lane, gate):
        running = submit(lane, [1])
        await gate.until(1)
        vanished = submit(lane, [2, 3, 4, 5])
        await gate.until(2)
        vanished.cancel()
        patient = submit(lane, [6, 7, 8, 9])
        await gate.until(3)  # it is ready in the other's place
        gate.open(2)
        assert await running == [2]
        assert await patient == [12, 14, 16, 18]
    assert [items for items, _ in gate.seen] == [1, 4]


async def test_the_time_of_a_request_is_told_apart_into_queue_and_forward() -> None:
    async with gated_lane() as (lane, gate):
        gate.open()
        gate.seconds = 0.1
        ahead = submit(lane, range(4), "ahead")
        await gate.until(1)
        clock, started = start_trace(), time.monotonic()
        await lane.submit(range(8), "measured")
        total = time.monotonic() - started
        await ahead
        await settle()
        # Two batches went ahead of its last one, and the stages are the whole.
        assert clock.stages["queue"] > 0.19
        assert clock.stages["forward"] > 0.09
        assert sum(clock.stages.values()) == pytest.approx(total, abs=0.02)
    assert [items for items, _ in gate.seen] == [4, 4, 4]
    # What a batch waited while it was ready is not the model's time.
    assert sum(seconds for _, seconds in gate.seen) < 0.1 * len(gate.seen) + 0.1


async def test_lanes_take_turns_so_that_neither_starves() -> None:
    order, changed = list[str](), asyncio.Event()

    def open_lane(name: str) -> Batcher:
        async def run(items: Sequence[int]) -> list[int]:
            order.append(name)
            await asyncio.sleep(0.001)
            return list(items)

        return Batcher(run, LIMITS, changed)

    images, texts = open_lane("images"), open_lane("texts")
    scheduler = BatchScheduler([images, texts], changed)
    scheduler.start()
    flood = submit(images, range(400))
    await asyncio.sleep(0.005)
    text = asyncio.ensure_future(texts.submit([1]))
    await asyncio.sleep(0)
    sent = len(order)
    await asyncio.wait_for(text, 5)
    assert "texts" in order[sent : sent + 2]
    await asyncio.gather(flood, texts.submit(range(400)), images.submit(range(400)))
    assert "images" in order[order.index("texts", sent + 3) :][:3]
    await scheduler.close()
