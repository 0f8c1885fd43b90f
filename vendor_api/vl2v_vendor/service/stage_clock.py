"""Where the time of one request goes, stage by stage.

The request's clock lies in a context variable: whoever does a part of the work names its stage, and need not be handed
the clock. The stages do not overlap, so that they sum up to the request's time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

Stage: TypeAlias = Literal["parse", "decode", "queue", "forward", "commit", "encode"]
"""Read and parse the body; decode images or tokenize; wait for the model; in the model; ledger; build the answer."""

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


class Interval(NamedTuple):
    """One stretch of a stage; a stage may have several.

    Attributes:
        started: seconds since the clock was started.
        seconds: how long it took.
    """

    stage: Stage
    started: float
    seconds: float


class StageClock:
    """The time that one request has spent in each stage so far, counted from when the clock was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._intervals: list[Interval] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._started

    @property
    def intervals(self) -> Sequence[Interval]:
        """Every stretch of time, in order."""
        return self._intervals

    @property
    def seconds(self) -> Mapping[Stage, float]:
        """The sum of each stage, in the order of `STAGES`; without those that did not happen."""
        sums: dict[Stage, float] = {}
        for interval in self._intervals:
            sums[interval.stage] = sums.get(interval.stage, 0.0) + interval.seconds
        return {stage: sums[stage] for stage in STAGES if stage in sums}

    def add(self, stage: Stage, seconds: float) -> None:
        """Count some seconds of a stage that are over by now.

        They are placed right after what was counted before, so several stages may be counted at once, in their order.
        """
        latest = max(0.0, self.elapsed - seconds)
        last = self._intervals[-1] if self._intervals else None
        started = latest if last is None else min(latest, last.started + last.seconds)
        self._intervals.append(Interval(stage, started, seconds))

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count the time of a block; also if it raises."""
        started = self.elapsed
        try:
            yield
        finally:
            self._intervals.append(Interval(stage, started, self.elapsed - started))


_clock: ContextVar[StageClock | None] = ContextVar("stage_clock", default=None)


def start_clock() -> StageClock:
    """A clock for the request that runs in this context."""
    clock = StageClock()
    _clock.set(clock)
    return clock


def record(stage: Stage, seconds: float) -> None:
    """Count some seconds of a stage of this context's request, if it has a clock; see `StageClock.add`."""
    clock = _clock.get()
    if clock is not None:
        clock.add(stage, seconds)


def timed(stage: Stage) -> AbstractContextManager[None]:
    """Count the time of a block for this context's request, if it has a clock; also if it raises."""
    clock = _clock.get()
    return nullcontext() if clock is None else clock.timed(stage)
