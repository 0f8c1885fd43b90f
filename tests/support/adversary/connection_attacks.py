"""Attacks by whoever has the vendor's port and no key: connections, heads, and requests that nobody may send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket

from support.adversary.door import MANY_ADDRESSES, Door

HALF_SENT = b"GET /healthz HTTP/1.1\r\nHost: ven"
_HEAD = b"POST /v1/embeddings/texts HTTP/1.1\r\nHost: vendor\r\nContent-Type: application/json\r\n"
STRANGE = (
    _HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /healthz HTTP/1.1\nHost: vendor\n\n",
    b"GET /healthz HTTP/1.1\r\nHost: vendor\r\nX-A: b\r\n c\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: vendor\r\nHost: other\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost : vendor\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
)
"""What another server could read in another way, or what is no HTTP; each is to be refused with 400."""


async def half_sent_heads(door: Door) -> None:
    await door.crowd(lambda number: door.until_closed(number, HALF_SENT))


async def half_sent_heads_of_many(door: Door) -> None:
    door.addresses = MANY_ADDRESSES
    await half_sent_heads(door)


async def idle_connections(door: Door) -> None:
    door.addresses = MANY_ADDRESSES
    await door.crowd(lambda number: door.until_closed(number, b""))


async def dripping_heads(door: Door) -> None:
    door.addresses = MANY_ADDRESSES

    async def drip(number: int) -> str:
        reader, writer = await door.connect(number)
        try:
            for letter in itertools.chain(b"GET /healthz HTTP/1.1\r\nX: ", itertools.repeat(ord("x"))):
                writer.write(bytes([letter]))
                with contextlib.suppress(TimeoutError):
                    return "closed" if not await asyncio.wait_for(reader.read(1000), timeout=0.5) else "400"
            return "closed"
        finally:
            writer.transport.abort()

    await door.crowd(drip)


async def huge_heads(door: Door) -> None:
    door.per_second, door.count = 50, min(door.count, 32)
    endless = b"GET /healthz HTTP/1.1\r\nHost: vendor\r\nX: " + b"x" * 1_000_000
    many = b"GET /healthz HTTP/1.1\r\nHost: vendor\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"\r\n"
    turns = itertools.cycle((endless, many))
    await door.crowd(lambda number: door.until_closed(number, next(turns)))


async def churn(door: Door) -> None:
    """Connections that end as soon as they are open."""
    door.addresses, door.count = MANY_ADDRESSES, min(door.count, 64)

    async def come_and_go(number: int) -> str:
        _, writer = await door.connect(number)
        writer.transport.abort()
        return "closed"

    await door.crowd(come_and_go)


async def unread_answers(door: Door) -> None:
    """Large answers asked for, several at once, on connections that read none of them."""
    door.addresses, door.count, door.per_second = MANY_ADDRESSES, min(door.count, 128), 50
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: vendor\r\n\r\n" * 4

    async def ask_and_wait(number: int) -> str:
        with socket.socket() as asking:
            asking.setblocking(False)
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            asking.bind((door.addresses[number % len(door.addresses)], 0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(asking, ("127.0.0.1", door.port))
            await loop.sock_sendall(asking, asked)
            while True:  # until the vendor gives up
                await asyncio.sleep(0.5)
                await loop.sock_sendall(asking, b"\r\n")

    await door.crowd(ask_and_wait)


async def strange_requests(door: Door) -> None:
    door.count, door.per_second = min(door.count, 16), 200
    turns = itertools.cycle(STRANGE)
    await door.crowd(lambda number: door.until_closed(number, next(turns)))


async def wrong_keys(door: Door) -> None:
    """Whole requests under keys that nobody has, on connections that stay open."""
    door.addresses, door.count = MANY_ADDRESSES, min(door.count, 16)
    streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def guess(number: int) -> str:
        if number not in streams:
            streams[number] = await door.connect(number)
        request = door.post("/v1/embeddings/texts", b'{"items":[{"text":"a dog"}]}', secret=_new_secret())
        try:
            return await door.ask(streams[number], request)
        except (OSError, EOFError):
            streams.pop(number)[1].transport.abort()
            raise

    await door.crowd(guess)


async def bodies_without_a_key(door: Door) -> None:
    """64 MiB under keys that nobody has."""
    door.count, door.per_second = min(door.count, 16), 50
    body = bytes(4 * 1024 * 1024)

    async def send(number: int) -> str:
        head = door.head("/v1/embeddings/images", 64 * 1024 * 1024, secret=_new_secret())
        return await door.until_closed(number, head + body)

    await door.crowd(send)


def _new_secret() -> str:
    return f"vl2v_{secrets.token_urlsafe(32)}"
