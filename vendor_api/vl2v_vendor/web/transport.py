"""The listening socket and HTTP/1.1 by uvicorn and h11, both bounded by `ConnectionLimits`.

The socket accepts while there is room, and refuses at once when there is none. The protocol has deadlines for what a
connection waits for, and is strict about line ends.
"""

import asyncio
import contextlib
import errno
import socket
from http import HTTPStatus
from typing import Any, ClassVar, Final

import h11
from fastapi.responses import Response
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.web.connections import ConnectionLimits, Slot, parse_address
from vl2v_vendor.web.problems import SECURITY_HEADERS, malformed_refusal, refusal

_REFUSED_AT_ONCE: Final = 64
_DISCARDED_BYTES: Final = 64 * 1024
_NO_FILE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class LimitedListener(socket.socket):
    """A TCP socket for asyncio's server that accepts no more connections than `limits` admit.

    asyncio accepts in a loop until `accept` raises BlockingIOError. So that is what it gets as well when it should turn
    to other work; what has arrived meanwhile is accepted in the loop's next turn. An accept that fails for want of
    files would make asyncio log thousands of lines a second: such a connection is closed by means of a file that is
    kept for this purpose.
    """

    def __init__(self, family: socket.AddressFamily, limits: ConnectionLimits) -> None:
        # asyncio sends small answers at once (TCP_NODELAY) only on sockets that name their protocol.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._limits = limits
        self._refusal = _last_answer(
            refusal(Overloaded("as many connections are open as may be; try again in a moment"), request_id="")
        )
        self._spare = socket.socket()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that is admitted, and its address.

        Raises:
            BlockingIOError: None has arrived, or no more is to be accepted in this turn of the event loop.
        """
        for _ in range(_REFUSED_AT_ONCE):
            if self._limits.is_crowded:
                break
            try:
                connection, address = super().accept()
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                self._refuse_without_file()
                break
            if self._limits.admit(address[0]):
                return connection, address
            self._refuse(connection)
        raise BlockingIOError

    def close(self) -> None:
        """Stop listening."""
        super().close()
        self._spare.close()

    def _refuse_without_file(self) -> None:
        self._limits.counts["refused_files"] += 1
        self._spare.close()
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = socket.socket()

    def _refuse(self, connection: socket.socket) -> None:
        """Answer unasked and close. What has been sent is read first, or a reset would take the answer away."""
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(self._refusal)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(_DISCARDED_BYTES)


def _last_answer(answer: Response) -> bytes:
    """Write an answer that no application gives, after which the connection is closed."""
    status = HTTPStatus(answer.status_code)
    sent = (b"%s: %s" % (name.title(), value) for name, value in (*answer.raw_headers, *SECURITY_HEADERS))
    lines = [f"HTTP/1.1 {status} {status.phrase}".encode(), b"Connection: close", *sent, b"", bytes(answer.body)]
    return b"\r\n".join(lines)


_LONGEST_UNREAD_SECONDS: Final = 30.0
"""Until an answer is read, however short it is."""

_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
"""A longer answer has as much more time."""


def limited_protocol(limits: ConnectionLimits) -> "type[LimitedProtocol]":
    """Return the protocol class, for uvicorn's `http=`, whose connections are counted by `limits`."""
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
        """Do as uvicorn; a new exchange is a complete head."""
        last = self.cycle
        super().handle_events()
        if self.cycle is not last:
            self._note_state()

    def on_response_complete(self) -> None:
        """Do as uvicorn, which may begin a request that has already been sent."""
        if self._slot is not None and "api_key_id" in self.cycle.scope.get("state", {}):
            self.limits.recognise(self._slot)
        self._note_state()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that something is not read yet."""
        super().pause_writing()
        self._is_unread = True
        self._note_state()

    def resume_writing(self) -> None:
        """Note that everything is read, or at least on its way."""
        super().resume_writing()
        self._is_unread = False
        self._note_state()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and whatever was still to be answered; close."""
        self.limits.counts["malformed"] += 1
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its application is not to answer as well
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_last_answer(malformed_refusal(msg)))
            self.transport.close()
        else:
            self.transport.abort()

    def _note_state(self) -> None:
        if self._slot is None:
            return
        if self._is_unread:
            unread_bytes = self.transport.get_write_buffer_size()
            seconds = _LONGEST_UNREAD_SECONDS + unread_bytes / _SLOWEST_BYTES_PER_SECOND
            self.limits.wait(self._slot, seconds, "slow_reader", unread_bytes=unread_bytes)
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
        """Extract the lines up to the first empty one, if that has come.

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
