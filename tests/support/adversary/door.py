"""The vendor's port as attackers use it: connections from chosen addresses, at a bounded rate, until time is up."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ONE_ADDRESS = ("127.0.0.9",)
MANY_ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 41))
"""Linux has all of 127.0.0.0/8."""

_HOST = "127.0.0.1"
_LARGEST_ANSWER = 64 * 1024 * 1024


@dataclass
class Door:
    """What one attack is given, and what it saw.

    Attributes:
        secret: An API key whose account has a budget of 0.
        seconds: How long the attack lasts.
        count: How many connections it keeps busy.
        per_second: Most acts a second, all connections together: attacker and vendor share one machine.
        seen: Ends of the acts: the status that was answered, `closed`, or `held` if the attack ended first.
    """

    port: int
    secret: str
    seconds: float
    count: int
    addresses: Sequence[str] = ONE_ADDRESS
    per_second: float = 1000.0
    seen: Counter[str] = field(default_factory=Counter)
    _end: float = 0.0
    _next_turn: float = 0.0

    async def crowd(self, act: Callable[[int], Awaitable[str]]) -> None:
        """Do an act again and again on `count` connections at once, until the time is up; note how each ended."""
        self._end = time.monotonic() + self.seconds
        crowd = [asyncio.create_task(self._again(act, number)) for number in range(self.count)]
        await asyncio.wait(crowd, timeout=self.seconds)
        for one in crowd:
            one.cancel()
        for outcome in await asyncio.gather(*crowd, return_exceptions=True):
            self.seen["held"] += isinstance(outcome, asyncio.CancelledError)
            if isinstance(outcome, Exception):
                raise outcome

    async def connect(self, number: int) -> Stream:
        """Open a connection from the address whose turn it is."""
        address = self.addresses[number % len(self.addresses)]
        return await asyncio.open_connection(_HOST, self.port, local_addr=(address, 0), limit=_LARGEST_ANSWER)

    async def until_closed(self, number: int, sent: bytes) -> str:
        """Send this, then wait for whatever comes; return its status, or `closed`."""
        reader, writer = await self.connect(number)
        try:
            writer.write(sent)
            return status_of(await reader.read())
        finally:
            writer.transport.abort()

    async def ask(self, stream: Stream, request: bytes) -> str:
        """Send a whole request on a connection and read its whole answer; return its status."""
        reader, writer = stream
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(content_length(head))
        return status_of(head)

    def post(self, path: str, body: bytes, kind: str = "application/json", secret: str | None = None) -> bytes:
        """Return a whole request."""
        return self.head(path, len(body), kind, secret) + body

    def head(self, path: str, length: int, kind: str = "application/json", secret: str | None = None) -> bytes:
        """Return the head of a request with a body of this length."""
        lines = [f"POST {path} HTTP/1.1", "Host: vendor", f"Authorization: Bearer {secret or self.secret}"]
        return "\r\n".join([*lines, f"Content-Type: {kind}", f"Content-Length: {length}", "", ""]).encode()

    async def _again(self, act: Callable[[int], Awaitable[str]], number: int) -> None:
        while await self._turn():
            try:
                self.seen[await act(number)] += 1
            except (OSError, EOFError):
                self.seen["closed"] += 1

    async def _turn(self) -> bool:
        """Wait until the rate allows another act; return whether there is time for one."""
        now = time.monotonic()
        self._next_turn = max(now, self._next_turn + 1 / self.per_second)
        await asyncio.sleep(self._next_turn - now)
        return time.monotonic() < self._end


def status_of(answer: bytes) -> str:
    """Return the status of an answer, or `closed` if there is none."""
    return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


def content_length(head: bytes) -> int:
    """Return how many bytes follow the head of an answer."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def items(values: Sequence[dict[str, object]]) -> bytes:
    """Return a sale's JSON body."""
    return json.dumps({"items": list(values)}).encode()
