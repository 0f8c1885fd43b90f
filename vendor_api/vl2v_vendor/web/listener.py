"""The listening socket: it accepts while there is room, and refuses at once when there is none."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any, Final

from vl2v_contract.wire import headers
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.web.connections import ConnectionLimits
from vl2v_vendor.web.problems import make_problem, refusal_headers

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
        self._refusal = _refusal()
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is admitted, and its address.

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
            _refuse(connection, self._refusal)
        raise BlockingIOError

    def close(self) -> None:
        """Stop listening."""
        super().close()
        self._close_spare()

    def _refuse_without_file(self) -> None:
        self._limits.count("refused_files")
        self._close_spare()
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1


def _refuse(connection: socket.socket, refusal: bytes) -> None:
    """Answer unasked and close. What has been sent is read first, or a reset would take the answer away."""
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(refusal)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(_DISCARDED_BYTES)


def _refusal() -> bytes:
    error = Overloaded("as many connections are open as may be; try again in a moment", 1)
    problem = make_problem(error, request_id="")
    body = problem.model_dump_json(exclude_none=True).encode()
    sent = {
        "Content-Type": headers.PROBLEM_JSON,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **refusal_headers(problem, error),
    }
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode() + body
