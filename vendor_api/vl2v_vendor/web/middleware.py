"""Pure ASGI middleware around the routes: bounds on bodies and on each client's share, refusal when too much waits.

Pure ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnection from the handler.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.errors import BodyStalled, Overloaded, PayloadTooLarge
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.web.connections import ConnectionLimits, address_name
from vl2v_vendor.web.problems import malformed_refusal, refusal

BODIES_AT_ONCE: Final = 4
"""Bodies of the largest size that are held at the same time."""

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Endpoints that monitors ask every few seconds."""

_LONGEST_ADDRESS: Final = 64

_DISCARDED_BYTES: Final = 256 * 1024
"""A refused body up to this size is taken in and thrown away, which costs less than a new connection."""

_LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between two pieces of one body, and for as long any body may be slow."""

_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
"""After that, on average: others wait for the room that a body takes."""


@dataclass(eq=False)
class BodyLimit:
    """Refuses a body over a size, bodies that together would take too much memory, and one that stops or dawdles.

    Sizes are decided when a handler begins to read, that is after the caller is known, by the declared length and
    before a byte is read; and again as bytes come in, which may be more than was declared or foreseen. A request that
    is answered before its body was read ends its connection, so that nobody waits for the rest to be sent.
    """

    app: ASGIApp
    max_request_bytes: int
    held_bytes: int = field(init=False, default=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        declared_bytes = int(length) if length.isdecimal() else None
        is_awaited = bool(declared_bytes) or "transfer-encoding" in headers
        body = _Body(self, receive, send, declared_bytes, is_awaited)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.release(body)

    def admit(self, body_bytes: int, more_bytes: int) -> None:
        """Check a body that has, or will have, `body_bytes`, of which `more_bytes` are not held yet.

        Raises:
            PayloadTooLarge: It is over the size.
            Overloaded: Too many bytes of others are held already.
        """
        if body_bytes > self.max_request_bytes:
            limit = self.max_request_bytes
            raise PayloadTooLarge(f"the request body is larger than {limit} bytes; send fewer or smaller items")
        if self.held_bytes + more_bytes > BODIES_AT_ONCE * self.max_request_bytes:
            raise Overloaded(f"{self.held_bytes} bytes of requests are in work already; try again in a moment")

    def release(self, body: "_Body") -> None:
        """Forget the bytes of a body that is not needed any more; whether its answer is ever read does not matter."""
        self.held_bytes -= body.held_bytes
        body.held_bytes = 0


@dataclass(eq=False, slots=True)
class _Body:
    """One request's body on its way in."""

    limit: BodyLimit
    receive_next: Receive
    send_on: Send
    declared_bytes: int | None
    is_awaited: bool
    began: float | None = None
    has_stalled: bool = False
    received_bytes: int = 0
    held_bytes: int = 0

    async def receive(self) -> Message:
        if self.began is None:
            self.began = time.monotonic()
            self.limit.admit(self.declared_bytes or 0, self.declared_bytes or 0)
        end = self.began + _LONGEST_PAUSE_SECONDS + self.received_bytes / _SLOWEST_BYTES_PER_SECOND
        left = min(_LONGEST_PAUSE_SECONDS, end - time.monotonic())
        try:
            async with asyncio.timeout(left if self.is_awaited else None):
                message = await self.receive_next()
        except TimeoutError:
            self.has_stalled = True
            raise BodyStalled(
                "the body stopped coming or came too slowly, and nothing was billed; send it again"
            ) from None
        if message["type"] == "http.request":
            self.is_awaited = message.get("more_body", False)
            more_bytes = len(message.get("body", b""))
            self.limit.admit(self.received_bytes + more_bytes, more_bytes)
            self.limit.held_bytes += more_bytes
            self.received_bytes += more_bytes
            self.held_bytes += more_bytes
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.limit.release(self)
            is_small = self.declared_bytes is not None and self.declared_bytes <= _DISCARDED_BYTES
            if self.is_awaited and (self.has_stalled or not is_small):
                MutableHeaders(scope=message)["Connection"] = "close"
        await self.send_on(message)


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
