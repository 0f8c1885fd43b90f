"""Prometheus series. Money is not counted here: the ledger counts it, exactly, and a restart forgets these numbers."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ports import Ledger
from vl2v_vendor.service.lanes import EncodingLanes

_DRIFT_REST_SECONDS = 15.0
_DRIFT_SHARE = 0.02
"""How much of the time a ledger of any size may spend on comparing its sums."""
_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The series of one server, in a registry of their own."""

    def __init__(self, lanes: EncodingLanes) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("vl2v_requests", "Requests answered.", ("endpoint", "status"), registry=self._registry)
        self._request_seconds = Histogram(
            "vl2v_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("endpoint",),
            buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._billed_units = Counter(
            "vl2v_billed_units_approximate",
            "Units billed since this process started. Approximate: the ledger is the truth.",
            ("modality",),
            registry=self._registry,
        )
        self._items = Counter("vl2v_items", "Items answered.", ("modality", "outcome"), registry=self._registry)
        depth = Gauge("vl2v_queue_depth", "Items that wait for the model.", ("lane",), registry=self._registry)
        for modality in lanes.queued_items:
            depth.labels(modality).set_function(partial(_depth, lanes, modality))
        self._drift_units = Gauge(
            "ledger_drift_units",
            "Units used in the budgets, less the units of charged items that were not refunded: alert unless 0. "
            "NaN while the ledger cannot be read.",
            registry=self._registry,
        )
        self._drift_lock = asyncio.Lock()
        self._drift_due = 0.0

    def observe_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request; status 499 is one whose client went away."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def observe_sale(self, modality: Modality, *, billed: int, free: int, failed: int) -> None:
        """Count what became of a request's items."""
        self._billed_units.labels(modality).inc(billed)
        for outcome, count in (("billed", billed), ("free", free), ("failed", failed)):
            self._items.labels(modality, outcome).inc(count)

    async def refresh_drift(self, ledger: Ledger) -> None:
        """Let the ledger compare its sums, unless it did lately. It reads every item for that."""
        async with self._drift_lock:
            started = monotonic()
            if started < self._drift_due:
                return
            try:
                self._drift_units.set(await ledger.drift_units())
            except LedgerUnavailable:
                self._drift_units.set(math.nan)
            finished = monotonic()
            rest = max(_DRIFT_REST_SECONDS, (finished - started) / _DRIFT_SHARE)
            self._drift_due = finished + rest

    def render(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self._registry)


def _depth(lanes: EncodingLanes, modality: Modality) -> float:
    return lanes.queued_items[modality]
