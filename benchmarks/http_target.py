"""A light HTTP/1.1 client: prepared bytes out, whole answers in, on connections that are kept open.

It costs tens of microseconds a request, where a full client library costs a millisecond of the cores that the server
under test needs. Answers are read to their `Content-Length`; an answer that comes before its request is sent in full
is read all the same.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_IDLE_SECONDS = 2.0
"""Servers close idle connections after some seconds; one that may be closing takes no new request."""


class ConnectionLost(Exception):
    """The connection ended before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, and the seconds from the first byte of the request to the last of the answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Connection(asyncio.Protocol):
    """One connection, one request at a time. Headers of answers are given in lower case."""

    def __init__(self) -> None:
        self.is_open = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = _parse(self._received, self._started)
        if answer is None or self._waiter is None or self._waiter.done():
            return
        self._received.clear()
        if answer.headers.get("connection", "").lower() == "close":
            self.abort()
        self._waiter.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionLost(str(exc or "closed by the server")))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            ConnectionLost: the connection ended first.
        """
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._started = time.perf_counter()
        self._transport.write(request)
        answer = await self._waiter
        self.idle_since = time.monotonic()
        return answer

    def abort(self) -> None:
        """Drop the connection, whatever is under way."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


class Target:
    """A server under load: keeps connections open and reuses them. A context manager, within one event loop.

    Args:
        url: `http://host:port`; a path is put before that of every request.
        headers: sent with every request, such as the API key.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port, self._prefix = parts.hostname, parts.port or 80, parts.path.rstrip("/")
        self._headers = headers or {}
        self._idle: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def request(
        self, path: str, body: bytes, media_type: str = "application/json", headers: dict[str, str] | None = None
    ) -> bytes:
        """The bytes of a POST, or of a GET if the body is empty."""
        named = {"Host": f"{self._host}:{self._port}", **self._headers, **(headers or {})}
        if body:
            named |= {"Content-Type": media_type, "Content-Length": str(len(body))}
        lines = [f"{'POST' if body else 'GET'} {self._prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            OSError: nobody listens.
        """
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    async def ask(self, request: bytes, *, timeout_seconds: float = 120.0) -> Answer:
        """Send a request on an idle connection or a new one.

        Raises:
            ConnectionLost: the connection ended before the answer did.
            TimeoutError: no answer in time.
            OSError: nobody listens.
        """
        connection = await self._take()
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await connection.ask(request)
        except BaseException:
            connection.abort()
            raise
        if connection.is_open:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Drop every idle connection."""
        while self._idle:
            self._idle.pop().abort()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.idle_since < _LONGEST_IDLE_SECONDS:
                return connection
            connection.abort()
        return await self.connect()


def multipart(files: Iterable[bytes], options: str | None = None) -> tuple[bytes, str]:
    """An image request as multipart/form-data: the body and its media type.

    Args:
        files: the content of one image file each.
        options: the form field `options`, JSON.
    """
    boundary = secrets.token_hex(16)
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="images"; filename="image"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%b\r\n" % (boundary.encode(), content)
        for content in files
    ]
    if options is not None:
        field = b'--%b\r\nContent-Disposition: form-data; name="options"\r\n\r\n%b\r\n'
        parts.append(field % (boundary.encode(), options.encode()))
    return b"".join([*parts, b"--%b--\r\n" % boundary.encode()]), f"multipart/form-data; boundary={boundary}"


def _parse(received: bytearray, started: float) -> Answer | None:
    """The answer, once it is complete."""
    end = received.find(_END_OF_HEAD)
    if end < 0:
        return None
    status_line, *lines = received[:end].decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body_at = end + len(_END_OF_HEAD)
    length = int(headers.get("content-length", 0))
    if len(received) < body_at + length:
        return None
    body = bytes(received[body_at : body_at + length])
    return Answer(int(status_line.split(" ", 2)[1]), headers, body, time.perf_counter() - started)
