"""Stuck is who is silent or sits on a batch; not who computes on a busy machine, nor when the watcher stood still."""

from __future__ import annotations

import threading
import time

from vl2v_vendor.engine.process.busy_time import read_busy_seconds
from vl2v_vendor.engine.process.watchdog import PERIOD_SECONDS, Watchdog


class Process:
    """A watched process; its batch computes, or waits for a processor, for `busy_share` of the time."""

    def __init__(self, largest_batch_seconds: float = 0.1) -> None:
        self.watchdog = Watchdog(2.0, largest_batch_seconds)
        self.busy_share = 0.0
        self._busy_seconds = 5.0
        self.watchdog.on_heartbeat(self._busy_seconds)

    def lasts(self, at_most: float, *, beats: bool = True) -> tuple[float, str | None]:
        """How long it is let alone, and why no longer."""
        passed = 0.0
        while passed < at_most:
            passed += PERIOD_SECONDS
            if beats:
                self._busy_seconds += self.busy_share * PERIOD_SECONDS
                self.watchdog.on_heartbeat(self._busy_seconds)
            if (reason := self.watchdog.check(PERIOD_SECONDS)) is not None:
                return passed, reason
        return passed, None


def test_an_idle_process_that_beats_is_let_alone() -> None:
    assert Process().lasts(1000) == (1000, None)


def test_a_silent_process_is_stuck_after_two_seconds_or_three_batches() -> None:
    for largest_batch_seconds, limit in ((0.1, 2.0), (4.0, 12.0)):
        seconds, reason = Process(largest_batch_seconds).lasts(100, beats=False)
        assert limit < seconds <= limit + PERIOD_SECONDS
        assert reason is not None
        assert "no sign of life" in reason


def test_a_process_that_sits_on_a_batch_without_computing_is_stuck() -> None:
    for warm_up_seconds, limit in ((0.1, 2.0), (3.0, 9.0)):
        process = Process(largest_batch_seconds=3.0)
        process.lasts(60)  # idle time does not count against the batch
        process.watchdog.begin_batch(warm_up_seconds)
        seconds, reason = process.lasts(100)
        assert limit < seconds <= limit + 3 * PERIOD_SECONDS
        assert reason is not None
        assert "does not compute" in reason


def test_a_process_that_computes_on_a_busy_machine_gets_five_times_as_long() -> None:
    process = Process()
    process.watchdog.begin_batch(1.0)
    process.busy_share = 0.2
    seconds, reason = process.lasts(100)
    assert 15 < seconds <= 15 + PERIOD_SECONDS
    assert reason is not None
    assert "computed one batch" in reason


def test_a_process_that_waits_for_a_processor_is_slow_and_not_stuck() -> None:
    """Its waits of a second are known once they are over, four heartbeats later."""
    process = Process()
    process.watchdog.begin_batch(1.0)
    for _ in range(10):
        process.busy_share = 0.0
        assert process.lasts(1.0) == (1.0, None)
        process.busy_share = 1.0 / PERIOD_SECONDS
        assert process.lasts(PERIOD_SECONDS) == (PERIOD_SECONDS, None)


def test_busy_time_counts_computing_and_waiting_threads_and_not_sleeping_ones() -> None:
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            pass

    before = read_busy_seconds()
    time.sleep(0.3)
    slept = read_busy_seconds() - before
    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    before, began = read_busy_seconds(), time.monotonic()
    time.sleep(0.5)
    busy, seconds = read_busy_seconds() - before, time.monotonic() - began
    done.set()
    assert slept < 0.1
    assert busy > 0.5 * seconds


def test_an_answer_starts_the_next_batch_afresh() -> None:
    process = Process()
    for _ in range(20):
        process.watchdog.begin_batch(0.1)
        assert process.lasts(1.5) == (1.5, None)
        process.watchdog.on_heartbeat()
    process.watchdog.begin_batch(None)
    assert process.lasts(100) == (100, None)


def test_time_in_which_the_watcher_stood_still_does_not_count() -> None:
    process = Process()
    process.watchdog.begin_batch(0.1)
    assert process.watchdog.check(3600.0) is None
    process.watchdog.on_heartbeat(5.0)
    assert process.lasts(1.0) == (1.0, None)
