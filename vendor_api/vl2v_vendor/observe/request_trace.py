"""What is known about the request in hand: its facts, where its time goes, and the log lines that carry them.

The trace lies in a context variable, so whoever learns a fact or does a part of the work notes it without being handed
the request. Stages do not overlap: they add up to the request's time. Log lines go to standard error, plain for people
or JSON for collectors; those that are written while a request is served carry its id.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from vl2v_contract.texts import printable

Stage: TypeAlias = Literal["parse", "decode", "queue", "forward", "commit", "encode"]
"""Read and parse the body; decode images or tokenize; wait for the model; in the model; ledger; build the answer."""

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

NO_ROUTE: Final = "unknown"

LogFormat = Literal["plain", "json"]

_log = logging.getLogger(__name__)


class Interval(NamedTuple):
    """One interval of a stage, in seconds from the beginning of the trace; a stage may have several."""

    stage: Stage
    started: float
    seconds: float


@dataclass(slots=True)
class RequestTrace:
    """Facts and times of one request, counted from when the trace was made.

    Attributes:
        path: Path as requested, without secrets.
        facts: What became known, by name.
        endpoint: Path template of the route, or `NO_ROUTE`.
        status: HTTP status; 499 if the client left before the answer began, 0 if the server stopped first.
        seconds: Time from the request's arrival to the end of its answer.
    """

    method: str
    path: str
    facts: dict[str, Any]
    intervals: list[Interval] = field(default_factory=list)
    endpoint: str = NO_ROUTE
    status: int = 0
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

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
    trace = RequestTrace(method, path, facts)
    _trace.set(trace)
    return trace


def note(**facts: object) -> None:
    """Add facts about this context's request, if there is one. Never a secret: they are logged."""
    if (trace := _trace.get()) is not None:
        trace.facts.update(facts)


def record(stage: Stage, seconds: float) -> None:
    """Count seconds of a stage that is over by now, if there is a request, right after what was counted before."""
    if (trace := _trace.get()) is not None:
        started = max(0.0, trace.elapsed - seconds)
        if trace.intervals:
            started = min(started, trace.intervals[-1].started + trace.intervals[-1].seconds)
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


def set_up_logging(level: str, log_format: LogFormat) -> None:
    """Send this process's log, and Python's warnings and the deaths of threads, to standard error.

    A second call replaces the first.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter() if log_format == "json" else _PlainFormatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("vl2v_vendor").setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each malformed request; they are counted
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns with what customers send
    logging.captureWarnings(True)
    threading.excepthook = _log_death


class _PlainFormatter(logging.Formatter):
    """A line for people, that ends in the request's id."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Escape what does not print in the first line, a line's end among it: a path is a stranger's."""
        line = printable(super().formatMessage(record))
        request_id = _fields(record).get("request_id")
        return line if request_id is None or request_id in line else f"{line} {request_id}"


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, an exception included; a record's `fields` become members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is known about the request in hand, and then the record's own `fields`."""
    trace, own = _trace.get(), getattr(record, "fields", None)
    return (trace.facts if trace else {}) | (own if isinstance(own, dict) else {})


def _log_death(death: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, instead of printing it."""
    if death.exc_value is not None and not isinstance(death.exc_value, SystemExit):
        name = death.thread.name if death.thread is not None else "unknown"
        _log.error("thread %s died", name, exc_info=death.exc_value)
