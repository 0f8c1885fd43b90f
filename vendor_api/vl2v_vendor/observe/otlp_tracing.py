"""Traces by the OpenTelemetry SDK: one span for a request, and below it one for each stretch of a stage.

Imported only when traces are asked for, since its packages come with the extra `otel`. The spans are made when the
request is over, from the stage clock, so that nothing is spent on them while it runs.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from vl2v_vendor.observe.request_trace import NO_ROUTE, RequestTrace, note

_SERVICE: Final = "vl2v-vendor"
_CLOSING_SECONDS: Final = 5.0


class OtlpTracing:
    """Hands the spans of requests to a processor: by default one that sends them where `OTEL_*` variables say."""

    def __init__(self, version: str, processor: SpanProcessor | None = None) -> None:
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_SERVICE, version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, scope: Scope) -> Callable[[RequestTrace], None]:
        """Begin the span of a request, below the caller's if it sent a `traceparent`; returns what ends it."""
        received = Headers(scope=scope)
        carrier = {name: received[name] for name in self._propagator.fields if name in received}
        context, started_ns = self._propagator.extract(carrier, Context()), time.time_ns()
        span = self._tracer.start_span(scope["method"], context, SpanKind.SERVER, start_time=started_ns)
        note(trace_id=format_trace_id(span.get_span_context().trace_id))
        return partial(self._finish, span, started_ns)

    def _finish(self, span: Span, started_ns: int, trace: RequestTrace) -> None:
        """Add the stages and what became of the request, and end its span."""

        def at(seconds: float) -> int:
            return started_ns + int(seconds * 1e9)  # nanoseconds

        if span.is_recording():
            parent = set_span_in_context(span, Context())
            for stage, started, seconds in trace.intervals:
                child = self._tracer.start_span(stage, context=parent, start_time=at(started))
                child.end(end_time=at(started + seconds))
            # Names after OpenTelemetry's conventions for HTTP servers; what is ours alone begins with `vl2v.`.
            attributes: dict[str, Any] = {
                "http.request.method": trace.method,
                "http.response.status_code": trace.status,
                "url.path": trace.path,
                **{f"vl2v.{name}": value for name, value in trace.facts.items() if name != "trace_id"},
            }
            if trace.endpoint != NO_ROUTE:
                attributes["http.route"] = trace.endpoint
                span.update_name(f"{trace.method} {trace.endpoint}")
            if trace.status >= 500:
                attributes["error.type"] = trace.facts.get("problem", str(trace.status))
                span.set_status(Status(StatusCode.ERROR))
            span.set_attributes(attributes)
        span.end(end_time=at(trace.seconds))

    def close(self) -> None:
        """Send what is left; a collector that does not answer is not waited for."""
        # The SDK alone would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="otel-close")
        closing.start()
        closing.join(_CLOSING_SECONDS)
