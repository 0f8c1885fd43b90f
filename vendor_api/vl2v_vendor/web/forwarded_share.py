"""Middleware: the share of one client's requests in progress, for clients whom a trusted proxy speaks for."""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.web.connection_slots import address_name
from vl2v_vendor.web.connections import ConnectionLimits
from vl2v_vendor.web.problems import make_problem, problem_response, refusal_headers

_LONGEST_ADDRESS: Final = 64


class ForwardedShare:
    """Refuses a request while its client has as many in progress as one address may have connections.

    A proxy's connections carry one client's requests after another's, so they are nobody's. Whose a request is says
    `scope["client"]`, where uvicorn's ProxyHeadersMiddleware has put the address that the proxy forwarded. Who comes
    without a proxy is under the limit of connections already, and does not reach this one.

    Args:
        app: Application that is called next.
        limits: Limits of the server's connections.
    """

    def __init__(self, app: ASGIApp, limits: ConnectionLimits) -> None:
        self._app = app
        self._limits = limits
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        client = scope.get("client")
        if scope["type"] != "http" or client is None or self._limits.is_trusted(client[0]):
            await self._app(scope, receive, send)
            return
        name = address_name(client[0][:_LONGEST_ADDRESS])
        if self._running[name] >= self._limits.max_per_address:
            self._limits.count("refused_address")
            error = Overloaded(f"{self._running[name]} requests of this address are in progress; try again in a moment")
            problem = make_problem(error, scope["state"]["request_id"])
            await problem_response(problem, refusal_headers(problem, error))(scope, receive, send)
            return
        self._running[name] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]
