"""A lane: bounds, isolates, drops what nobody waits for, and lets nobody wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from support.vendor.batch_gate import LIMITS, Batcher, Gate, gated_lane, settle, submit
from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable, Overloaded

pytestmark = pytest.mark.anyio


async def test_nothing_is_encoded_for_a_request_of_nothing() -> None:
    async with gated_lane() as (lane, gate):
        assert await lane.submit([]) == []
        assert gate.batches == []


async def test_a_failure_reaches_only_its_owner() -> None:
    async with gated_lane() as (lane, gate):
        gate.open()
        good, bad = await asyncio.gather(lane.submit([1, 2]), lane.submit([-3, 4]))
        assert good == [2, 4]
        assert isinstance(bad[0], EncodingFailed)
        assert bad[1] == 8
        assert await lane.submit([5]) == [10]


async def test_a_missing_output_is_a_failure_and_not_a_shift() -> None:
    async with gated_lane() as (lane, _gate):

        async def lose_one(items: Sequence[int]) -> list[int]:
            return [item for item in items if item != 2]

        lane._run = lose_one
        outcomes = await lane.submit([1, 2, 3])
        assert (outcomes[0], outcomes[2]) == (1, 3)
        assert isinstance(outcomes[1], EncodingFailed)


async def test_a_full_queue_refuses_at_once_and_counts_what_is_reserved() -> None:
    async with gated_lane(limits=replace(LIMITS, queued_items=10)) as (lane, gate):
        running = submit(lane, range(8))
        await gate.until(2)
        waiting = submit(lane, range(10))
        await settle()
        assert lane.queued_items == 10
        with pytest.raises(Overloaded):
            lane.check_room(1)
        with pytest.raises(Overloaded), lane.reserve(1, "other"):
            pass
        gate.open()
        await asyncio.gather(running, waiting)
        lane.check_room(10)
        with lane.reserve(4, "one"):
            lane.check_room(6)
            with pytest.raises(Overloaded):
                lane.check_room(7)
            with pytest.raises(Overloaded), lane.reserve(7, "other"):
                pass
        assert lane.reserved_items == 0
        lane.check_room(10)


async def test_an_account_that_has_some_of_the_room_leaves_half_of_the_rest_to_others() -> None:
    async with gated_lane(limits=replace(LIMITS, queued_items=20)) as (lane, gate):
        with lane.reserve(20, "one"):  # nobody else is there
            pass
        running = submit(lane, range(8), "one")
        await gate.until(2)
        waiting = submit(lane, range(4), "one")
        await settle()
        with lane.reserve(6, "one"):
            with pytest.raises(Overloaded, match="10 items of this account are waiting"), lane.reserve(1, "one"):
                pass
            with lane.reserve(4, "two"), lane.reserve(3, "three"), pytest.raises(Overloaded, match="this account"):
                lane.check_room(2, "three")
        gate.open()
        await asyncio.gather(running, waiting)
        with lane.reserve(20, "one"):
            pass


async def test_an_account_may_always_fill_a_batch() -> None:
    async with gated_lane(limits=replace(LIMITS, queued_items=LIMITS.batch_items)) as (lane, _gate):
        with lane.reserve(1, "one"), lane.reserve(LIMITS.batch_items - 1, "one"):
            assert lane.reserved_items == LIMITS.batch_items


async def test_when_to_come_back_is_estimated_from_the_queue_and_the_pace() -> None:
    async with gated_lane() as (lane, gate):
        gate.seconds = 0.2
        gate.open(1)
        await lane.submit(range(4))  # 0.05 seconds per item
        running = submit(lane, range(8))
        await gate.until(3)
        waiting = submit(lane, range(200))
        await settle()
        with pytest.raises(Overloaded) as refusal:
            lane.check_room(801)
        assert 5 <= refusal.value.retry_after_seconds <= 20
        running.cancel()
        waiting.cancel()


async def test_what_would_wait_too_long_behind_its_own_key_is_refused_on_arrival() -> None:
    async with gated_lane(limits=replace(LIMITS, wait_seconds=1.0)) as (lane, gate):
        gate.seconds = 0.1
        gate.open(1)
        await lane.submit(range(4))  # 0.025 seconds per item
        tasks = [submit(lane, range(48), "many")]
        await gate.until(3)
        with pytest.raises(Overloaded, match="in time"), lane.reserve(1, "many"):
            pass
        lane.check_room(1)
        tasks.append(submit(lane, [1], "few"))
        await settle()
        assert not tasks[1].done()
        for task in tasks:
            task.cancel()


async def test_a_request_of_which_nothing_moves_is_refused_and_one_that_is_worked_on_is_not() -> None:
    async with gated_lane(limits=replace(LIMITS, wait_seconds=0.2)) as (lane, gate):
        gate.seconds = 0.06
        worked_on = submit(lane, range(16), "worked on")
        await gate.until(2)
        gate.open()
        assert len(await worked_on) == 16  # it takes 0.24 seconds
        gate.permits = asyncio.Semaphore(0)
        blocking = submit(lane, range(8), "blocking")
        await gate.until(6)
        stuck = submit(lane, [1], "stuck")
        with pytest.raises(Overloaded, match="waited"):
            await stuck
        assert lane.queued_items == 0
        assert not blocking.done()  # the model has it
        blocking.cancel()


async def test_a_batch_longer_than_the_longest_wait_does_not_cost_its_request_the_rest() -> None:
    lane = Batcher(Gate().run, replace(LIMITS, wait_seconds=0.2), asyncio.Event())
    request = submit(lane, range(5))
    await settle()
    batch = lane.take()
    await asyncio.sleep(0.3)
    lane.end(batch, 0.3)
    await asyncio.sleep(0.15)
    assert not request.done()  # its fifth item has waited for 0.15 seconds
    with pytest.raises(Overloaded):
        await asyncio.wait_for(request, 5)


async def test_work_that_nobody_waits_for_leaves_the_queue_at_once() -> None:
    async with gated_lane() as (lane, gate):
        running = submit(lane, [1])
        await gate.until(1)
        vanished, patient = submit(lane, [2, 3], "vanished"), submit(lane, [4])
        await settle()
        assert lane.queued_items == 3
        vanished.cancel()
        await asyncio.wait([vanished])
        assert lane.queued_items == 1
        gate.open()
        assert await running == [2]
        assert await patient == [8]
        assert gate.batches == [[1], [4]]


async def test_closing_tells_everybody_who_waits() -> None:
    async with gated_lane() as (lane, gate):
        waiting = [submit(lane, [1])]
        await gate.until(1)
        waiting += [submit(lane, [2, 3, 4, 5]), submit(lane, [6])]
        await gate.until(2)
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes)
