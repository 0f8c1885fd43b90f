"""Requests that a proxy may read in another way than the vendor are refused, and no answer quotes a Host header."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.vendor.listening_vendor import listening
from support.vendor.raw_http import CHUNKED, GET, HOST, POST, PlainApp, exchange
from support.vendor.serving_shop import running_vendor
from vl2v_vendor.web.connections import ConnectionLimits

pytestmark = pytest.mark.anyio

AMBIGUOUS = {
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": POST + b"transfer-encoding: Chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": POST + b"Content-Length: 1, 2\r\n\r\nab",
    "a signed length": POST + b"Content-Length: +1\r\n\r\na",
    "two codings": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "LF for every line": b"GET / HTTP/1.1\nHost: vendor\n\n",
    "LF for one header": GET + b"A: b\nC: d\r\n\r\n",
    "LF for the empty line": GET + b"\n",
    "LF before the request": b"\n" + GET + b"\r\n",
    "LF in a trailer": CHUNKED + b"\r\n0\r\nA: b\n\r\n",
    "LF after the last chunk": CHUNKED + b"\r\n0\r\n\n",
    "LF in a chunk's extension": CHUNKED + b"\r\n1;a\nb\r\na\r\n0\r\n\r\n",
    "LF for a chunk": CHUNKED + b"\r\n1\na\r\n0\r\n\r\n",
    "CR alone": GET + b"A: b\rC: d\r\n\r\n",
    "a continued header": GET + b"A: b\r\n c\r\n\r\n",
    "a header continued by a tab": GET + b"A: b\r\n\tc\r\n\r\n",
    "a continued trailer": CHUNKED + b"\r\n0\r\nA: b\r\n c\r\n\r\n",
    "a continued request line": b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n",
    "a space before the colon": GET + b"A : b\r\n\r\n",
    "a zero byte": GET + b"A: \0\r\n\r\n",
    "two hosts": GET + HOST + b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("first", [b"", GET + b"\r\n"], ids=["alone", "after another"])
async def test_what_a_proxy_may_read_in_another_way_is_refused(
    sent: bytes, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app, limits = PlainApp(), ConnectionLimits(8)
    async with listening(app, limits) as port:
        answer = await exchange(port, first + sent + GET.replace(b"/", b"/smuggled", 1) + b"\r\n")
    answers = answer.split(b"HTTP/1.1 ")[1:]
    assert [told[:3] for told in answers] == ([b"200"] if first else []) + [b"400"]
    assert b"connection: close" in answers[-1].lower()
    assert "/smuggled" not in app.paths
    assert limits.counts == {"malformed": 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_is_sent_properly_is_read_in_pieces_and_one_after_another() -> None:
    app = PlainApp()
    trailer = CHUNKED + b"\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n"
    sent = GET + b"A: \t b c \r\n\r\n" + POST + b"Content-Length: 3\r\n\r\na\nb" + trailer
    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(len(sent)):
            writer.write(sent[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(GET + b"Connection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert len(app.paths) == 4


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/models/", "/healthz/", "/v1/embeddings/images/", "/docs/", "//docs"])
async def test_no_answer_quotes_the_host(method: str, path: str) -> None:
    async with running_vendor() as vendor:
        async with listening(vendor.app) as port:
            sent = f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            answer = await exchange(port, sent.encode())
        assert answer[9:12] in (b"404", b"405")
        assert b"evil.example" not in answer


async def test_redirects_name_no_host() -> None:
    async with running_vendor() as vendor:
        async with listening(vendor.app) as port:
            answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert answer[9:12] == b"303"
        assert b"\r\nlocation: /login\r\n" in answer
        assert b"evil.example" not in answer
