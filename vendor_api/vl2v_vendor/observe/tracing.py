"""OpenTelemetry traces, when the standard `OTEL_*` variables ask for them; its SDK is not imported otherwise."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from starlette.types import Scope

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.observe.request_trace import RequestTrace

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
            f"the environment asks for traces and OpenTelemetry is not installed; "
            f"install 'vl2v[vendor,otel]', or set {_EXPORTER}=none"
        ) from None
    return OtlpTracing(version)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first of some variables that is set to something."""
    return next(filter(None, map(environ.get, names)), None)
