"""HTTP/1.1 by uvicorn and h11, with deadlines for what a connection waits for, and strict about line ends."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

import h11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from vl2v_vendor.web.connection_slots import Slot, parse_address
from vl2v_vendor.web.connections import ConnectionLimits

_LONGEST_UNREAD_SECONDS: Final = 30.0
"""Until an answer is read, however short it is."""

_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
"""A longer answer has as much more time."""


def limited_protocol(limits: ConnectionLimits) -> type[LimitedProtocol]:
    """The protocol class, for uvicorn's `http=`, whose connections are counted by `limits`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})


class LimitedProtocol(H11Protocol):
    """One connection, which tells its limits whether it waits or has a request in hand."""

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn._receive_buffer = StrictBuffer()
        self._slot: Slot | None = None
        self._is_unread = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place that the listener admitted."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that a byte that the client does not read is known of
        host, port = transport.get_extra_info("peername")[:2]
        self.client = (str(parse_address(host) or host), port)
        self._slot = self.limits.enter(host, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        if self._slot is not None:
            self.limits.leave(self._slot)
            self._slot = None
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """As uvicorn's; a new exchange is a complete head."""
        last = self.cycle
        super().handle_events()
        if self.cycle is not last:
            self._note_state()

    def on_response_complete(self) -> None:
        """As uvicorn's, which may begin a request that has already been sent."""
        if self._slot is not None and "api_key_id" in self.cycle.scope.get("state", {}):
            self.limits.recognise(self._slot)
        self._note_state()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Something is not read yet."""
        super().pause_writing()
        self._is_unread = True
        self._note_state()

    def resume_writing(self) -> None:
        """Everything is read, or at least on its way."""
        super().resume_writing()
        self._is_unread = False
        self._note_state()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and whatever was still to be answered; close."""
        self.limits.count("malformed")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its application is not to answer as well
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _note_state(self) -> None:
        if self._slot is None:
            return
        if self._is_unread:
            seconds = self.transport.get_write_buffer_size() / _SLOWEST_BYTES_PER_SECOND
            self.limits.wait(self._slot, _LONGEST_UNREAD_SECONDS + seconds, "slow_reader")
        elif self.cycle is None or self.cycle.response_complete:
            self.limits.wait(self._slot, self.limits.head_seconds)
        else:
            self.limits.work(self._slot)


class StrictBuffer(ReceiveBuffer):
    """h11's buffer, that refuses heads and trailers which another server or proxy may read in another way.

    h11 alone also takes a bare LF for the end of a line, joins continued lines (obs-fold), and ignores Content-Length
    where there is Transfer-Encoding.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines up to the first empty one, if that has come.

        Raises:
            LocalProtocolError: They are ambiguous; h11 makes it the peer's error.
        """
        size = len(self._data)
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        text = b"\n".join([*lines, b""])
        if size - len(self._data) != len(text) + len(lines) + len(b"\r\n"):
            raise h11.LocalProtocolError("a line does not end in CRLF")
        if b"\n " in text or b"\n\t" in text:
            raise h11.LocalProtocolError("a header is continued on another line")
        text = text.lower()
        if b"\ntransfer-encoding:" in text and b"\ncontent-length:" in text:
            raise h11.LocalProtocolError("both Content-Length and Transfer-Encoding")
        return lines
