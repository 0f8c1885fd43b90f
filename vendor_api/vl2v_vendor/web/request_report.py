"""What became of one request, for those who write it down: log, metrics and trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vl2v_vendor.service.stage_clock import Interval, Stage

NO_ROUTE: Final = "unknown"

_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """One request, answered or given up.

    Attributes:
        path: as it was asked for, without secrets.
        endpoint: the route's template, so that there are few; `NO_ROUTE` where none fits.
        status: of the answer; 499 if the client went away before there was one, 0 if the server stopped first.
        seconds: from the request's arrival to the end of its answer.
        stages: seconds by stage.
        intervals: the same one by one, from the request's arrival.
        facts: what else became known, by name: see `service/request_facts.py`.
    """

    method: str
    path: str
    endpoint: str
    status: int
    seconds: float
    stages: Mapping[Stage, float]
    intervals: tuple[Interval, ...]
    facts: Mapping[str, Any]

    @property
    def is_probe(self) -> bool:
        """Whether a machine asked, as it does every few seconds."""
        return self.endpoint in _PROBES
