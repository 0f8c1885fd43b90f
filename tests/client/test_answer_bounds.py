"""Whatever answers the client: it reads no more, and waits no longer, than what it asked for can need."""

from __future__ import annotations

import gzip
import itertools
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest

from support.loopback import serve_on_loopback
from vl2v_client.api import bounded
from vl2v_client.api.client import VendorClient
from vl2v_client.api.responses import parse
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.core.errors import VendorError, VendorUnavailable
from vl2v_contract.records import PublicKeys, Summary

pytestmark = pytest.mark.timeout(20)

MANY_BYTES = 64 * 2**20


@contextmanager
def vendor_that(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[VendorClient, list[str]]]:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        asked.append(handler.path)
        try:
            respond(handler)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    with serve_on_loopback(answer) as url, VendorClient(url, None, sleep=lambda _seconds: None) as client:
        yield client, asked


def begin(handler: BaseHTTPRequestHandler, status: int = 200, **sent: str) -> None:
    handler.send_response(status)
    for name, value in sent.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("ask", [VendorClient.model, VendorClient.summary], ids=["model", "summary"])
def test_an_answer_without_end_is_left_and_not_asked_for_again(ask: Callable[[VendorClient], Any], status: int) -> None:
    written = 0

    def respond(handler: BaseHTTPRequestHandler) -> None:
        nonlocal written
        begin(handler, status, Connection="close")
        while True:
            written += handler.wfile.write(bytes(65_536))
            assert written < 10 * MANY_BYTES

    with vendor_that(respond) as (client, asked), pytest.raises(VendorError, match="more than"):
        ask(client)
    assert len(asked) == 1
    assert written < 2 * MANY_BYTES


def test_a_whole_answer_has_a_deadline_that_its_pieces_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PATIENCE_SECONDS", 0.3)

    def respond(handler: BaseHTTPRequestHandler) -> None:
        begin(handler, Content_Length="1000000")
        for _ in range(600):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    with vendor_that(respond) as (client, asked), pytest.raises(VendorUnavailable, match="did not answer in time"):
        client.model()
    assert len(asked) == 3


def test_nothing_is_inflated() -> None:
    body = gzip.compress(bytes(MANY_BYTES), 1)

    def respond(handler: BaseHTTPRequestHandler) -> None:
        assert handler.headers["accept-encoding"] == "identity"
        begin(handler, Content_Encoding="gzip", Content_Length=str(len(body)))
        handler.wfile.write(body)

    with vendor_that(respond) as (client, _), pytest.raises(VendorError, match="compressed"):
        client.model()


def endless_head(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    for number in itertools.count():
        handler.send_header(f"X-{number}", "x" * 1000)
        handler.flush_headers()


def garbled_head(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"welcome\r\n\r\n")
    handler.close_connection = True


def cut_body(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Content_Length="1000000")
    handler.wfile.write(b"{")
    handler.close_connection = True


def compressed_body(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Content_Encoding="gzip", Content_Length="0")


def reset_body(handler: BaseHTTPRequestHandler) -> None:
    cut_body(handler)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def silence(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def test_an_answer_of_more_values_than_its_bytes_need_is_not_parsed() -> None:
    body = b"{%s}" % b",".join(b'"%d":{}' % number for number in range(80_000))

    def respond(handler: BaseHTTPRequestHandler) -> None:
        begin(handler, Content_Length=str(len(body)))
        handler.wfile.write(body)

    with vendor_that(respond) as (client, asked), pytest.raises(VendorError, match="more values than"):
        client.trusted_keys(lambda _ledger_id: None)
    assert len(asked) == 1


def test_of_many_faults_their_number_is_told() -> None:
    answer = httpx.Response(200, json=dict.fromkeys(map(str, range(200))), request=httpx.Request("GET", "http://a/b"))
    with pytest.raises(VendorError, match="/b: 202 faults"):
        parse(answer, PublicKeys, "http://a")


def test_an_answer_is_not_copied_for_each_field_that_it_lacks() -> None:
    answer = httpx.Response(200, json=dict.fromkeys(map(str, range(5000))), request=httpx.Request("GET", "http://a/b"))
    tracemalloc.start()
    try:
        with pytest.raises(VendorError, match="faults"):
            parse(answer, Summary, "http://a")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3_000_000


@pytest.mark.parametrize("broken", [endless_head, garbled_head, cut_body, reset_body, compressed_body])
def test_a_broken_answer_is_not_a_vendor_that_restarts(broken: Callable[[BaseHTTPRequestHandler], None]) -> None:
    assert asked_before_giving_up(broken) == RetryPolicy().max_attempts


def test_a_connection_closed_without_a_word_is_a_vendor_that_restarts() -> None:
    assert asked_before_giving_up(silence) > RetryPolicy().max_attempts


def asked_before_giving_up(lie: Callable[[BaseHTTPRequestHandler], None]) -> int:
    """Return how often a vendor that has answered before is asked again."""
    lies = itertools.chain([lambda handler: begin(handler, 404, Content_Length="0")], itertools.repeat(lie))
    with vendor_that(lambda handler: next(lies)(handler)) as (client, asked):
        with pytest.raises(VendorError):
            client.model()
        with pytest.raises(VendorUnavailable, match="broke"):
            client.model()
    return len(asked) - 1
