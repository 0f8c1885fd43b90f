"""Middleware: a request id, the time of each stage, a log line, a measurement and a trace for every answer.

Pure ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnection from the handler.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_contract.wire import headers
from vl2v_vendor.domain.accounts import hide_secrets
from vl2v_vendor.service.request_facts import note, request_facts
from vl2v_vendor.service.stage_clock import Stage, StageClock, start_clock
from vl2v_vendor.web.errors import make_problem, problem_response
from vl2v_vendor.web.metrics import Metrics
from vl2v_vendor.web.request_report import NO_ROUTE, RequestReport
from vl2v_vendor.web.tracing import Tracing

SERVER_TIMING: Final = "Server-Timing"

_access_log = logging.getLogger("vl2v_vendor.access")
_log = logging.getLogger(__name__)

_REQUEST_ID_BYTES: Final = 12
_FOREIGN_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CLIENT_GONE_STATUS: Final = 499
_INTERNAL_STATUS: Final = 500


class RequestContext:
    """Names each request, and sees to it that each has an answer and is written down.

    The request id is of our making always, since ledger entries are found by it. A caller's own `X-Request-Id` is
    logged beside it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(_REQUEST_ID_BYTES)}"
        scope.setdefault("state", {})["request_id"] = request_id
        with request_facts(request_id=request_id) as facts, self._metrics.in_flight():
            _note_foreign_id(scope)
            clock = start_clock()
            trace = None if self._tracing is None else self._tracing.begin(scope)
            answer = _Answer(request_id, clock, send)
            try:
                await self._serve(scope, receive, answer)
            finally:
                report = _report(scope, answer.status, clock, facts)
                self._metrics.observe_request(report)
                _write_access_line(report)
                if trace is not None:
                    trace.finish(report)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = _CLIENT_GONE_STATUS
        except Exception as error:
            # The last resort: the cause goes into the log under the request's id, and nothing of it into the answer.
            _log.exception("request %s failed", answer.request_id)
            if answer.status == 0:
                await problem_response(make_problem(error, answer.request_id))(scope, receive, answer.send)


class _Answer:
    """The way out: what passes here gets the request's id and the time that it took so far."""

    def __init__(self, request_id: str, clock: StageClock, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self._clock = clock
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            sent = MutableHeaders(scope=message)
            sent[headers.REQUEST_ID] = self.request_id
            stages = self._clock.seconds
            if stages:
                sent[SERVER_TIMING] = server_timing(stages, self._clock.elapsed)
        await self._send(message)


def server_timing(stages: Mapping[Stage, float], total_seconds: float) -> str:
    """The value of `Server-Timing`: milliseconds by stage, and of the whole until the answer begins."""
    durations: list[tuple[str, float]] = [*stages.items(), ("total", total_seconds)]
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in durations)


def _note_foreign_id(scope: Scope) -> None:
    """Note the caller's name for the request, if it is one that cannot disturb a log."""
    foreign = Headers(scope=scope).get(headers.REQUEST_ID)
    if foreign is not None and _FOREIGN_ID.fullmatch(foreign):
        note(client_request_id=hide_secrets(foreign))


def _report(scope: Scope, status: int, clock: StageClock, facts: Mapping[str, Any]) -> RequestReport:
    return RequestReport(
        method=scope["method"],
        path=hide_secrets(scope["path"]),
        endpoint=scope["state"].get("endpoint") or str(getattr(scope.get("route"), "path", NO_ROUTE)),
        status=status,
        seconds=clock.elapsed,
        stages=clock.seconds,
        intervals=tuple(clock.intervals),
        facts=facts,
    )


def _write_access_line(report: RequestReport) -> None:
    level = logging.WARNING if report.status >= _INTERNAL_STATUS else logging.INFO
    if report.is_probe:
        level = logging.DEBUG
    if not _access_log.isEnabledFor(level):
        return
    fields = {
        "method": report.method,
        "path": report.path,
        "status": report.status,
        "milliseconds": round(1000 * report.seconds, 1),
        "stage_milliseconds": {stage: round(1000 * seconds, 2) for stage, seconds in report.stages.items()},
        **report.facts,
    }
    _access_log.log(
        level, "%(method)s %(path)s %(status)s %(milliseconds)s ms %(request_id)s", fields, extra={"fields": fields}
    )
