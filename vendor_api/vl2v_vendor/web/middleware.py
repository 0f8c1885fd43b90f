"""Pure ASGI middleware: a request id, an access line and a measurement for every answer, and a bound on bodies.

Pure ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnection from the handler.
"""

from __future__ import annotations

import logging
import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_contract.wire import headers
from vl2v_vendor.domain.accounts import hide_secrets
from vl2v_vendor.domain.errors import PayloadTooLarge
from vl2v_vendor.web.errors import make_problem, problem_response
from vl2v_vendor.web.metrics import Metrics

_access_log = logging.getLogger("vl2v_vendor.access")
_log = logging.getLogger(__name__)

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID_BYTES = 12
_CLIENT_GONE_STATUS = 499
_INTERNAL_STATUS = 500


class RequestContext:
    """Names each request, and sees to it that each has an answer, a log line and a measurement."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(_REQUEST_ID_BYTES)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[headers.REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = _CLIENT_GONE_STATUS
        except Exception as error:
            # The last resort: the cause goes into the log under the request's id, and nothing of it into the answer.
            _log.exception("request %s failed", request_id)
            if status == 0:
                await problem_response(make_problem(error, request_id))(scope, receive, send_named)
        finally:
            self._account(scope, request_id, status, time.perf_counter() - started)

    def _account(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope.get("route")
        endpoint = str(getattr(route, "path", "unknown"))
        self._metrics.observe_request(endpoint, status, seconds)
        level = logging.WARNING if status >= _INTERNAL_STATUS else logging.INFO
        if endpoint in _PROBES:
            level = logging.DEBUG
        fields = {
            "request_id": request_id,
            "method": scope["method"],
            "path": hide_secrets(scope["path"]),
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "api_key_id": scope["state"].get("api_key_id"),
        }
        _access_log.log(
            level,
            "%(method)s %(path)s %(status)s %(milliseconds)s ms %(request_id)s",
            fields,
            extra={"fields": fields},
        )


class BodyLimit:
    """Refuses bodies over a size: by their declared length before a byte is read, else when the bytes have come."""

    def __init__(self, app: ASGIApp, max_request_bytes: int) -> None:
        self._app = app
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self._max_request_bytes:
            problem = make_problem(PayloadTooLarge(self._max_request_bytes), scope["state"]["request_id"])
            # The rest of the body is not read, so the connection cannot be used again.
            await problem_response(problem, {"Connection": "close"})(scope, receive, send)
            return
        received_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_request_bytes:
                # Starlette's own exception, the only one that its body and multipart readers let through.
                raise HTTPException(413, detail=str(PayloadTooLarge(self._max_request_bytes)))
            return message

        await self._app(scope, receive_bounded, send)
