"""Pure ASGI middleware around the routes: bounds on bodies and on each client's share, refusal when too much waits.

Pure ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnection from the handler.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.web.connections import ConnectionLimits, address_name
from vl2v_vendor.web.problems import malformed_refusal, refusal

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Endpoints that monitors ask every few seconds."""

_LONGEST_ADDRESS: Final = 64


@dataclass(eq=False)
class OverloadGate:
    """Refuses before anything is done for a request: no routing, no key looked up, no body read.

    A flood must cost no more than its refusals. So who is refused here is not told whether the key is good.
    """

    app: ASGIApp
    lanes: EncodingLanes
    modality_of: Mapping[str, Modality]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["method"] == "POST" and scope["path"] in self.modality_of:
            try:
                self.lanes[self.modality_of[scope["path"]]].check_room(1)
            except Overloaded as error:
                scope["state"]["endpoint"] = scope["path"]
                await refusal(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self.app(scope, receive, send)


@dataclass(eq=False)
class ClientWatch:
    """Ends the work of a client that went away: what still waits is neither done nor billed.

    A charge that has begun is finished all the same, and its vectors can be fetched free.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        work = cast("asyncio.Task[Any]", asyncio.current_task())
        watch: asyncio.Task[None] | None = None
        has_answered = client_has_left = False

        async def wait_for_departure() -> None:
            nonlocal client_has_left
            await receive()
            if not has_answered:
                client_has_left = True
                work.cancel()

        async def receive_watched() -> Message:
            """After the body is read, nothing but the client's departure can come in."""
            nonlocal watch
            if watch is not None:
                await watch
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watch = asyncio.create_task(wait_for_departure())
            return message

        async def send_noted(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        try:
            await self.app(scope, receive_watched, send_noted)
        except asyncio.CancelledError:
            if not client_has_left:
                raise
            work.uncancel()
            raise ClientDisconnect from None
        finally:
            if watch is not None:
                watch.cancel()


@dataclass(eq=False)
class HostGate:
    """Refuses requests for another host than the vendor's own; probes may come by any address.

    So no page of another site can have a browser ask a vendor of its own network under that site's name.
    """

    app: ASGIApp
    allowed_hosts: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        host = Headers(scope=scope).get("host", "").lower()
        name, _, port = host.rpartition(":")
        if scope["path"] in PROBES or (name if port.isdecimal() else host) in self.allowed_hosts:
            await self.app(scope, receive, send)
            return
        detail = (
            "the Host header names none of this vendor's hosts; use the address that the vendor gave you, or, if you "
            "run it, add this one to `allowed_hosts`"
        )
        await malformed_refusal(detail, scope["state"]["request_id"])(scope, receive, send)


@dataclass(eq=False)
class ForwardedShare:
    """Refuses a request while its client has as many in progress as one address may have connections.

    A proxy's connections carry one client's requests after another's, so they are nobody's. Whose a request is says
    `scope["client"]`, where uvicorn's ProxyHeadersMiddleware has put the address that the proxy forwarded. Who comes
    without a proxy is under the limit of connections already, and does not reach this one.
    """

    app: ASGIApp
    limits: ConnectionLimits
    running: Counter[str] = field(init=False, default_factory=Counter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        client = scope.get("client")
        if client is None or self.limits.is_trusted(client[0]):
            await self.app(scope, receive, send)
            return
        name = address_name(client[0][:_LONGEST_ADDRESS])
        if self.running[name] >= self.limits.max_per_address:
            self.limits.counts["refused_address"] += 1
            detail = f"{self.running[name]} requests of this address are in progress; try again in a moment"
            await refusal(Overloaded(detail), scope["state"]["request_id"])(scope, receive, send)
            return
        self.running[name] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running[name] -= 1
            if not self.running[name]:
                del self.running[name]
