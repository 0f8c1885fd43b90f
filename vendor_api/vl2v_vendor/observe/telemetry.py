"""Prometheus series, and OpenTelemetry traces when the standard `OTEL_*` variables ask for them.

Money is not counted here: the ledger counts it, exactly, and a restart forgets these numbers.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from starlette.types import Scope

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.domain.ports import Ledger
from vl2v_vendor.observe.request_trace import RequestTrace

_DRIFT_REST_SECONDS: Final = 15.0
_DRIFT_SHARE: Final = 0.02
"""How much of the time a ledger of any size may spend on comparing its sums."""
_SECONDS_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_ITEMS_BUCKETS: Final = tuple(2**power for power in range(11))


class Metrics:
    """The series of one server, in a registry of their own; those of `live` are read when they are scraped."""

    def __init__(self, model: ModelInfo, *, version: str, live: Iterable[Collector] = ()) -> None:
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        seconds = partial(histogram, buckets=_SECONDS_BUCKETS)
        self._requests = counter("vl2v_requests", "Requests answered.", ("endpoint", "status"))
        self.requests_in_flight = gauge("vl2v_requests_in_flight", "Requests that have no whole answer yet.")
        self._refusals = counter(
            "vl2v_refusals",
            "Requests refused, by the problem's code and status; `unnamed` is an answer without a problem document.",
            ("endpoint", "code", "status"),
        )
        self._request_seconds = seconds(
            "vl2v_request_seconds",
            "From the arrival of a request's head to the last byte of its answer.",
            ("endpoint",),
        )
        self._stage_seconds = seconds(
            "vl2v_stage_seconds",
            "What a request spent in each stage: parse, decode, queue, forward, commit, encode.",
            ("endpoint", "stage"),
        )
        self._billed_units = counter(
            "vl2v_billed_units_approximate",
            "Units billed since this process started. Approximate: the ledger is the truth.",
            ("modality",),
        )
        self._items = counter("vl2v_items", "Items answered.", ("modality", "outcome"))
        self._batch_items = histogram(
            "vl2v_batch_items", "Items in a batch of the model.", ("lane",), buckets=_ITEMS_BUCKETS
        )
        self._batch_seconds = seconds("vl2v_batch_seconds", "How long the model took for a batch.", ("lane",))
        for collector in live:
            registry.register(collector)
        ProcessCollector(registry=registry)
        # Two series that are always 1: their labels say what runs here.
        Info("vl2v_build", "This program.", registry=registry).info({"version": version})
        labels = ("precision", "device", "preprocessing_id", "weights_sha")
        Info("vl2v_model", "The model on sale.", registry=registry).info(
            {"model": model.id, **{name: getattr(model, name) for name in labels}}
        )
        self._drift_units = gauge(
            "ledger_drift_units",
            "Units used in the budgets, less the units of charged items that were not refunded: alert unless 0. "
            "NaN while the ledger cannot be read.",
        )
        self._drift_lock = asyncio.Lock()
        self._drift_due = 0.0

    def observe_request(self, trace: RequestTrace) -> None:
        """Count one request and, if it is a sale, its items; status 499 is one whose client went away."""
        endpoint, status, facts = trace.endpoint, str(trace.status), trace.facts
        self._requests.labels(endpoint, status).inc()
        self._request_seconds.labels(endpoint).observe(trace.seconds)
        for stage, seconds in trace.stages.items():
            self._stage_seconds.labels(endpoint, stage).observe(seconds)
        if trace.status >= 400 and trace.status != 499:
            self._refusals.labels(endpoint, facts.get("problem", "unnamed"), status).inc()
        if "modality" in facts:
            self._billed_units.labels(facts["modality"]).inc(facts["billed_units"])
            for outcome, name in (("billed", "billed_units"), ("free", "free_units"), ("failed", "failed_items")):
                self._items.labels(facts["modality"], outcome).inc(facts[name])

    def observe_batch(self, lane: Modality, items: int, seconds: float) -> None:
        """Count one batch that the model has done."""
        self._batch_items.labels(lane).observe(items)
        self._batch_seconds.labels(lane).observe(seconds)

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
            self._drift_due = finished + max(_DRIFT_REST_SECONDS, (finished - started) / _DRIFT_SHARE)

    def render(self) -> bytes:
        """Render the text format that Prometheus scrapes."""
        return generate_latest(self._registry)


_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_DISABLED: Final = "OTEL_SDK_DISABLED"
_PROTOCOL: Final = "http/protobuf"


class TracingUnavailable(VendorError):
    """Traces are asked for and cannot be made."""


class Tracing(Protocol):
    """Where traces go."""

    def begin(self, scope: Scope) -> Callable[[RequestTrace], None]:
        """Begin the span of a request, below the caller's (`traceparent`), and note its `trace_id`.

        Returns:
            Function that ends the span, and adds the stages and what became of the request.
        """

    def close(self) -> None:
        """Send what is left, within seconds."""


def open_tracing(environ: Mapping[str, str], *, version: str) -> Tracing | None:
    """Open traces as the environment says; None if it asks for none.

    They are asked for by an OTLP endpoint, or by `OTEL_TRACES_EXPORTER=otlp` for the default endpoint.

    Raises:
        TracingUnavailable: The packages are missing, or another exporter or protocol is asked for.
    """
    exporter = environ.get(_EXPORTER, "").strip().lower()
    if environ.get(_DISABLED, "").strip().lower() == "true" or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise TracingUnavailable(f"{_EXPORTER} is `{exporter}`; this server knows `otlp` and `none`")
    if not exporter and not _first(environ, _ENDPOINTS):
        return None
    protocol = _first(environ, _PROTOCOLS) or _PROTOCOL
    if protocol != _PROTOCOL:
        raise TracingUnavailable(f"traces are sent by {_PROTOCOL} alone, not by {protocol}; set {_PROTOCOLS[1]} to it")
    try:
        from vl2v_vendor.observe.otlp_tracing import OtlpTracing
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        raise TracingUnavailable(
            "the environment asks for traces and OpenTelemetry is not installed: pip install opentelemetry-sdk "
            f"opentelemetry-exporter-otlp-proto-http, or set {_EXPORTER}=none"
        ) from None
    return OtlpTracing(version)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first of some variables that is set to something."""
    return next(filter(None, map(environ.get, names)), None)
