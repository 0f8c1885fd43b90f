"""The limit of request bodies: how large one may be, how long it may take, and how much of all is held at once."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_vendor.domain.errors import BodyStalled, Overloaded, PayloadTooLarge

BODIES_AT_ONCE: Final = 4
"""Bodies of the largest size for which there is room at the same time."""

SMALL_BODY: Final = 64
"""A body whose declared size is at most this part of the largest is a small one."""

_DISCARDED_BYTES: Final = 256 * 1024
"""A refused body up to this size is taken in and thrown away, which costs less than a new connection."""

_LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between two pieces of one body, and for as long any body may be slow."""

_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
"""After that, on average: others wait for the room that a body takes."""


@dataclass(eq=False, slots=True)
class _Room:
    """Bytes for bodies. An account may hold half of what the others leave, so that no account fills it."""

    size_bytes: int
    held_by: Counter[str] = field(init=False, default_factory=Counter)

    def take(self, account_id: str, more_bytes: int) -> None:
        """Hold bytes for an account.

        Raises:
            Overloaded: They are more than its share.
        """
        own, held = self.held_by[account_id], self.held_by.total()
        if own + more_bytes > (self.size_bytes - (held - own)) // 2:
            raise Overloaded(
                f"{own} bytes of this account's requests are in work already, and {held - own} of others'; "
                "try again in a moment"
            )
        self.held_by[account_id] += more_bytes

    def give_back(self, account_id: str, held_bytes: int) -> None:
        """Hold so many bytes less for an account."""
        self.held_by[account_id] -= held_bytes
        if not self.held_by[account_id]:
            del self.held_by[account_id]


@dataclass(eq=False)
class BodyLimit:
    """Refuses a body over a size, bodies that together would take too much memory, and one that stops or dawdles.

    Sizes are decided when a handler begins to read, that is after the caller is known: the declared length is taken
    before a byte is read, and what is more than that as it comes in. Small bodies have a room of their own, so that no
    large ones stop them. A request that is answered before its body was read ends its connection, so that nobody waits
    for the rest to be sent.
    """

    app: ASGIApp
    max_request_bytes: int
    _room: _Room = field(init=False)
    _small_room: _Room = field(init=False)

    def __post_init__(self) -> None:
        self._room = _Room(BODIES_AT_ONCE * self.max_request_bytes)
        self._small_room = _Room(self.max_request_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        declared_bytes = int(length) if length.isdecimal() else None
        is_awaited = bool(declared_bytes) or "transfer-encoding" in headers
        body = _Body(self, scope, receive, send, declared_bytes, is_awaited)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.release()

    def room_of(self, declared_bytes: int | None) -> _Room:
        """Return where a body of this declared size is held; None if it says nothing of its size."""
        is_small = declared_bytes is not None and declared_bytes * SMALL_BODY <= self.max_request_bytes
        return self._small_room if is_small else self._room


@dataclass(eq=False, slots=True)
class _Body:
    """One request's body on its way in."""

    limit: BodyLimit
    scope: Scope
    receive_next: Receive
    send_on: Send
    declared_bytes: int | None
    is_awaited: bool
    began: float | None = None
    has_stalled: bool = False
    received_bytes: int = 0
    held_bytes: int = 0
    _account_id: str = ""
    _room: _Room | None = None

    async def receive(self) -> Message:
        if self.began is None:
            self.began = time.monotonic()
            self._account_id = self.scope.get("state", {}).get("account_id", "")
            self._room = self.limit.room_of(self.declared_bytes)
            self._hold(self.declared_bytes or 0)
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
            self._hold(self.received_bytes + len(message.get("body", b"")))
            self.received_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.release()
            is_small = self.declared_bytes is not None and self.declared_bytes <= _DISCARDED_BYTES
            if self.is_awaited and (self.has_stalled or not is_small):
                MutableHeaders(scope=message)["Connection"] = "close"
        await self.send_on(message)

    def release(self) -> None:
        """Forget the bytes, which are not needed any more; whether the answer is ever read does not matter."""
        if self._room is not None:
            self._room.give_back(self._account_id, self.held_bytes)
            self._room, self.held_bytes = None, 0

    def _hold(self, body_bytes: int) -> None:
        """Take room for a body that has, or will have, so many bytes.

        Raises:
            PayloadTooLarge: It is over the size.
            Overloaded: The account's share has no room for it.
        """
        limit = self.limit.max_request_bytes
        if body_bytes > limit:
            raise PayloadTooLarge(f"the request body is larger than {limit} bytes; send fewer or smaller items")
        if self._room is not None and body_bytes > self.held_bytes:
            self._room.take(self._account_id, body_bytes - self.held_bytes)
            self.held_bytes = body_bytes
