"""Middleware: a request id, the time of each stage, a log line, a measurement and a trace for every answer.

Pure ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnection from the handler.
"""

import logging
import re
import secrets
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_contract.wire import headers
from vl2v_vendor.domain.accounts import hide_secrets
from vl2v_vendor.observe.request_trace import NO_ROUTE, RequestTrace, start_trace
from vl2v_vendor.observe.telemetry import Metrics, Tracing
from vl2v_vendor.web.access_log import AccessLog
from vl2v_vendor.web.problems import SECURITY_HEADERS, refusal

_log = logging.getLogger(__name__)

_FOREIGN_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CLIENT_GONE_STATUS: Final = 499


@dataclass(eq=False)
class RequestContext:
    """Names each request, and makes sure that each has an answer and is recorded; in no series if there are none.

    The request id is always made here, since ledger entries are found by it. A caller's own `X-Request-Id` is logged
    beside it, if it cannot disturb a log.
    """

    app: ASGIApp
    metrics: Metrics | None = None
    tracing: Tracing | None = None
    access_log: AccessLog = field(default_factory=AccessLog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            return  # there are no lifespan events here, and no WebSockets
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        with self.metrics.requests_in_flight.track_inprogress() if self.metrics else nullcontext():
            trace = start_trace(scope["method"], hide_secrets(scope["path"]), request_id=request_id)
            foreign = Headers(scope=scope).get(headers.REQUEST_ID)
            if foreign is not None and _FOREIGN_ID.fullmatch(foreign):
                trace.facts["client_request_id"] = hide_secrets(foreign)
            end_span = None if self.tracing is None else self.tracing.begin(scope)
            try:
                await self._serve(scope, receive, send, trace)
            finally:
                trace.seconds = trace.elapsed
                trace.endpoint = scope["state"].get("endpoint") or getattr(scope.get("route"), "path", NO_ROUTE)
                if self.metrics is not None:
                    self.metrics.observe_request(trace)
                self.access_log.write(trace)
                if end_span is not None:
                    end_span(trace)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, trace: RequestTrace) -> None:
        request_id = scope["state"]["request_id"]

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
                sent = MutableHeaders(scope=message)
                sent[headers.REQUEST_ID] = request_id
                if stages := trace.stages:
                    durations: list[tuple[str, float]] = [*stages.items(), ("total", trace.elapsed)]
                    sent["Server-Timing"] = ", ".join(f"{name};dur={1000 * s:.2f}" for name, s in durations)
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except ClientDisconnect:
            trace.status = _CLIENT_GONE_STATUS
        except Exception as error:
            # The last resort: the cause goes into the log under the request's id, and nothing of it into the answer.
            _log.exception("request %s failed", request_id)
            if trace.status == 0:
                await refusal(error, request_id)(scope, receive, send_named)
