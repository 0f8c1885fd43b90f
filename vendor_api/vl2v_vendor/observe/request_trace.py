"""What is known about the request in hand: facts for its log lines, and where its time goes, stage by stage.

The trace lies in a context variable, so whoever learns a fact or does a part of the work notes it without being handed
the request. Stages do not overlap: they add up to the request's time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

Stage: TypeAlias = Literal["parse", "decode", "queue", "forward", "commit", "encode"]
"""Read and parse the body; decode images or tokenize; wait for the model; in the model; ledger; build the answer."""

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

NO_ROUTE: Final = "unknown"


class Interval(NamedTuple):
    """One interval of a stage; a stage may have several.

    Attributes:
        started: Seconds from the beginning of the trace.
        seconds: Length of the interval.
    """

    stage: Stage
    started: float
    seconds: float


class RequestTrace:
    """Facts and times of one request, counted from when the trace was made.

    Attributes:
        facts: What became known, by name.
        intervals: Every interval of a stage, in order.
        method: HTTP method.
        path: Path as requested, without secrets.
        endpoint: Path template of the route, or `NO_ROUTE`.
        status: HTTP status; 499 if the client left before the answer began, 0 if the server stopped first.
        seconds: Time from the request's arrival to the end of its answer.
    """

    def __init__(self, method: str = "", path: str = "", **facts: object) -> None:
        self.facts: dict[str, Any] = facts
        self.intervals: list[Interval] = []
        self.method = method
        self.path = path
        self.endpoint = NO_ROUTE
        self.status = 0
        self.seconds = 0.0
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the trace was made."""
        return time.perf_counter() - self._started

    @property
    def stages(self) -> Mapping[Stage, float]:
        """Seconds of each stage that happened, in the order of `STAGES`."""
        sums: dict[Stage, float] = {}
        for interval in self.intervals:
            sums[interval.stage] = sums.get(interval.stage, 0.0) + interval.seconds
        return {stage: sums[stage] for stage in STAGES if stage in sums}


_trace: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)


def start_trace(method: str = "", path: str = "", **facts: object) -> RequestTrace:
    """Begin the trace of the request that runs in this context."""
    trace = RequestTrace(method, path, **facts)
    _trace.set(trace)
    return trace


def known_facts() -> Mapping[str, Any]:
    """Return what is known so far about this context's request; empty outside of one."""
    trace = _trace.get()
    return {} if trace is None else trace.facts


def note(**facts: object) -> None:
    """Add facts about this context's request, if there is one. Never a secret: they are logged."""
    trace = _trace.get()
    if trace is not None:
        trace.facts.update(facts)


def record(stage: Stage, seconds: float) -> None:
    """Count seconds of a stage that is over by now, if there is a request, right after what was counted before."""
    trace = _trace.get()
    if trace is not None:
        latest = max(0.0, trace.elapsed - seconds)
        last = trace.intervals[-1] if trace.intervals else None
        started = latest if last is None else min(latest, last.started + last.seconds)
        trace.intervals.append(Interval(stage, started, seconds))


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """Count the time of a block for this context's request, if there is one; also if the block raises."""
    trace = _trace.get()
    started = 0.0 if trace is None else trace.elapsed
    try:
        yield
    finally:
        if trace is not None:
            trace.intervals.append(Interval(stage, started, trace.elapsed - started))
