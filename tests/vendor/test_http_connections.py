"""How long one connection may take, and for whom it speaks: the vendor's own server over a socket."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.server import ServerState

from support.vendor.listening_vendor import listening
from support.vendor.raw_http import GET, HOST, PlainApp, exchange
from support.vendor.serving_shop import running_vendor
from support.waiting import until
from vl2v_vendor.cli.server import bind, server_config
from vl2v_vendor.web.app import create_app
from vl2v_vendor.web.connections import ConnectionLimits

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
HEAD_SECONDS, UNREAD_SECONDS, READ_BYTES_PER_SECOND = 10, 30, 64 * 1024
UNREAD_BYTES = 16 * 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def one_connection(
    app: PlainApp,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, ConnectionLimits, Clock]]:
    """Open one connection to an app, on a clock that only the test moves."""
    clock = Clock()
    limits = ConnectionLimits(8, head_seconds=HEAD_SECONDS, clock=clock)
    async with listening(app, limits) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        try:
            yield reader, writer, limits, clock
        finally:
            writer.close()


def transport_of(writer: asyncio.StreamWriter) -> asyncio.Transport:
    assert isinstance(writer.transport, asyncio.Transport)
    return writer.transport


@pytest.mark.parametrize("is_second", [False, True], ids=["the first request", "the next request"])
async def test_a_head_has_a_deadline_that_a_drip_does_not_move(is_second: bool) -> None:
    async with one_connection(PlainApp()) as (reader, writer, limits, clock):
        await until(lambda: limits.open == 1)
        if is_second:
            clock.now += HEAD_SECONDS - 1
            writer.write(GET + b"\r\n")
            assert b"127.0.0.1" in await reader.readuntil(b"127.0.0.1")
        began = clock.now
        for seconds in (1, HEAD_SECONDS - 1):
            clock.now = began + seconds
            writer.write(b"G")
            await asyncio.sleep(0.05)
            limits.sweep()
            assert limits.counts["slow_request"] == 0
        clock.now = began + HEAD_SECONDS
        limits.sweep()
        assert await asyncio.wait_for(reader.read(), timeout=10) in (b"", b"\r\n0\r\n\r\n")
        assert limits.counts["slow_request"] == 1


async def test_a_request_in_hand_has_no_deadline_of_the_connection() -> None:
    app = PlainApp()

    async with one_connection(app) as (reader, writer, limits, clock):
        app.gate.clear()
        writer.write(GET + b"\r\n")
        await until(lambda: bool(app.paths))
        clock.now += 1000
        limits.sweep()
        app.gate.set()
        assert b"127.0.0.1" in await reader.readuntil(b"127.0.0.1")


async def test_the_last_bytes_of_an_answer_have_a_deadline_too() -> None:
    """asyncio tells of unread bytes only from 64 KiB on, unless it is asked to tell of the first."""

    clock = Clock()
    limits = ConnectionLimits(8, head_seconds=HEAD_SECONDS, clock=clock)
    config = server_config(PlainApp(), limits)
    config.load()
    with bind("127.0.0.1", 0, limits) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: config.http_protocol_class(config=config, server_state=ServerState(), app_state={}),  # type: ignore[call-arg]
                accepted,
            )
            while transport.get_write_buffer_size() == 0:
                transport.write(b"x" * 1000)
            clock.now += HEAD_SECONDS
            limits.sweep()
            assert not limits.counts
            clock.now += UNREAD_SECONDS
            limits.sweep()
            assert limits.counts == {"slow_reader": 1}
            await asyncio.sleep(0)
            assert limits.open == 0


@pytest.mark.parametrize("requests", [1, 3])
async def test_an_answer_that_is_not_read_has_a_deadline_by_its_size(requests: int) -> None:
    app = PlainApp(UNREAD_BYTES)
    async with one_connection(app) as (_reader, writer, limits, clock):
        writer.write((GET + b"\r\n") * requests)
        transport_of(writer).pause_reading()
        await until(lambda: bool(app.paths))
        await asyncio.sleep(0.1)
        clock.now += UNREAD_SECONDS
        limits.sweep()
        assert limits.open == 1
        clock.now += UNREAD_BYTES / READ_BYTES_PER_SECOND
        limits.sweep()
        await until(lambda: limits.open == 0)
        assert limits.counts == {"slow_reader": 1}


async def test_answers_that_are_not_read_are_bounded_in_bytes() -> None:
    async with one_connection(PlainApp(UNREAD_BYTES)) as (_reader, writer, limits, _clock):
        limits.max_unread_bytes = UNREAD_BYTES // 10
        transport_of(writer).pause_reading()
        writer.write(GET + b"\r\n")
        await until(lambda: limits.open == 0)
        assert limits.counts == {"slow_reader": 1}


async def test_a_long_answer_that_is_read_slowly_arrives_whole() -> None:
    async with one_connection(PlainApp(UNREAD_BYTES)) as (reader, writer, limits, clock):
        writer.write(GET + b"Connection: close\r\n\r\n")
        transport_of(writer).pause_reading()
        await asyncio.sleep(0.1)
        clock.now += UNREAD_SECONDS
        limits.sweep()
        transport_of(writer).resume_reading()
        assert (await asyncio.wait_for(reader.read(), timeout=10)).count(b"x") > UNREAD_BYTES


LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ([], "192.0.2.1", b"127.0.0.1"),
        ([ipaddress.ip_network("10.0.0.0/8")], "192.0.2.1", b"127.0.0.1"),
        ([LOOPBACK], "192.0.2.1", b"192.0.2.1"),
        ([LOOPBACK], "198.51.100.9, 192.0.2.1", b"192.0.2.1"),
        ([LOOPBACK, ipaddress.ip_network("192.0.2.0/24")], "198.51.100.9, 192.0.2.1", b"198.51.100.9"),
    ],
)
async def test_a_forwarded_address_counts_from_a_trusted_proxy_alone(
    trusted: Any, forwarded: str, client: bytes
) -> None:
    async with listening(PlainApp(), ConnectionLimits(8, trusted_proxies=trusted)) as port:
        sent = GET + f"X-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n".encode()
        assert client in await exchange(port, sent)


async def test_a_proxys_client_has_a_share_of_requests_and_the_proxy_has_none() -> None:
    limits = ConnectionLimits(16, max_per_address=2, trusted_proxies=[LOOPBACK])

    async with running_vendor() as vendor:

        def head(client: str) -> bytes:
            told = f"POST {IMAGES} HTTP/1.1\r\nHost: vendor\r\nAuthorization: Bearer {vendor.secret}\r\n"
            told += "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n"
            return f"{told}X-Forwarded-For: {client}\r\nExpect: 100-continue\r\n\r\n".encode()

        async with listening(create_app(vendor.services, connections=limits), limits) as port:
            begun = []
            for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head(client))
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                begun.append((reader, writer))
            refused = await exchange(port, head("203.0.113.5, 192.0.2.1"))
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in refused.lower()
            assert b'"code":"overloaded"' in refused
            for reader, writer in begun:
                writer.write(b"{}")
                assert (await reader.read()).startswith(b"HTTP/1.1 422 ")
                writer.close()
            assert (await exchange(port, head("192.0.2.1") + b"{}")).startswith(b"HTTP/1.1 100 ")
        assert limits.counts == {"refused_address": 1}


async def test_the_connections_are_in_the_metrics() -> None:
    async with running_vendor() as vendor:
        limits = ConnectionLimits(16)
        async with listening(create_app(vendor.services, connections=limits), limits) as port:
            await exchange(port, b"GET / HTTP/1.1\r\n\r\n")
            told = (await exchange(port, b"GET /metrics HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")).decode()
        assert "\nvl2v_connections 1.0\n" in told
        assert "\nvl2v_connections_limit 16.0\n" in told
        assert '\nvl2v_connections_ended_total{cause="malformed"} 1.0\n' in told
        assert '\nvl2v_connections_ended_total{cause="refused_full"} 0.0\n' in told
