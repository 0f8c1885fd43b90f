"""The stages of a request: they sum up, follow upon each other, and find their request by themselves."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import pytest

from vl2v_vendor.observe.request_trace import RequestTrace, record, start_trace, timed

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def apart(story: Callable[[], T]) -> T:
    """Run a story in a context of its own, as a request runs."""
    return contextvars.copy_context().run(story)


def test_a_stage_has_the_sum_of_its_stretches_in_the_order_of_the_road() -> None:
    def story() -> RequestTrace:
        clock = start_trace()
        record("commit", 0.25)
        record("parse", 0.5)
        record("commit", 1.0)
        return clock

    clock = apart(story)
    assert list(clock.stages.items()) == [("parse", 0.5), ("commit", 1.25)]


def test_a_block_is_timed_where_it_stands_also_if_it_raises() -> None:
    def fail_slowly() -> None:
        with timed("decode"):
            time.sleep(0.03)
            raise ValueError("injected")

    def story() -> RequestTrace:
        clock = start_trace()
        time.sleep(0.02)
        with pytest.raises(ValueError, match="injected"):
            fail_slowly()
        return clock

    [interval] = apart(story).intervals
    assert interval.stage == "decode"
    assert interval.started >= 0.02
    assert interval.seconds >= 0.03


def test_stages_that_are_counted_at_once_follow_upon_each_other() -> None:
    def story() -> tuple[RequestTrace, float]:
        clock = start_trace()
        with timed("commit"):
            time.sleep(0.01)
        time.sleep(0.05)
        record("queue", 0.02)
        record("forward", 0.03)
        return clock, clock.elapsed

    clock, elapsed = apart(story)
    assert [interval.stage for interval in clock.intervals] == ["commit", "queue", "forward"]
    for earlier, later in pairwise(clock.intervals):
        assert later.started >= earlier.started + earlier.seconds - 1e-9
    last = clock.intervals[-1]
    assert last.started + last.seconds <= elapsed


async def test_each_request_has_a_clock_of_its_own_also_in_its_threads() -> None:
    async def request(name: str, seconds: float) -> RequestTrace:
        clock = start_trace()
        await asyncio.to_thread(record, "decode", seconds)
        await asyncio.sleep(0)
        record("encode", seconds)
        return clock

    first, second = await asyncio.gather(request("first", 1.0), request("second", 2.0))
    assert first.stages == {"decode": 1.0, "encode": 1.0}
    assert second.stages == {"decode": 2.0, "encode": 2.0}


def test_outside_of_a_request_nothing_is_counted() -> None:
    def story() -> None:
        record("queue", 1.0)
        with timed("commit"):
            pass

    apart(story)
    clock = apart(start_trace)
    assert clock.stages == {}
