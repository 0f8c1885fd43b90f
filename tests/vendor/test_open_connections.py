"""Connections that strangers hold open stop nobody: a vendor that may open 256 files, and more sockets than that."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.live_parties import Vendor, free_port
from support.vendor.serving_shop import images, png

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has all of 127.0.0.0/8")

FILES = 256
CONNECTIONS, SHARE = 128, 32  # what the vendor makes of so few files; a test below holds it to that
FLOOD = 400
HALF_SENT = b"GET /healthz HTTP/1.1\r\nHost: ven"
ONE_ADDRESS = ["127.0.0.1"]
MANY_ADDRESSES = [f"127.0.1.{number}" for number in range(1, 41)]
LOG_BYTES = 4_000
SOON_SECONDS = 1.0
HEAD_SECONDS = 2


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    vendor = Vendor(
        tmp_path_factory.mktemp("crowded") / "vendor",
        free_port(),
        settings={"VL2V_VENDOR_HEAD_SECONDS": str(HEAD_SECONDS)},
        max_files=FILES,
    )
    vendor.start()
    try:
        yield vendor
    finally:
        vendor.kill()


@pytest.fixture(scope="module")
def secret(vendor: Vendor) -> str:
    return vendor.create_key("acme", 1000)


@pytest.fixture(autouse=True)
def quiet_vendor(vendor: Vendor) -> Iterator[None]:
    """Leave no connection of one test to the next."""
    yield
    deadline = time.monotonic() + 10
    while is_occupied(vendor):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connect(vendor: Vendor, source: str, sent: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", vendor.port), timeout=5, source_address=(source, 0))
    opened.sendall(sent)
    return opened


@contextmanager
def held_open(vendor: Vendor, count: int, sources: list[str], sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections on which nothing follows what was sent, from these addresses in turn."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(connect(vendor, source, sent))
            for source in itertools.islice(itertools.cycle(sources), count)
        ]


def ask(vendor: Vendor, path: str, source: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=SOON_SECONDS, source_address=(source, 0))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def open_connections(vendor: Vendor) -> float:
    found = re.search(r"^vl2v_connections (\S+)$", ask(vendor, "/metrics", "127.0.0.8"), re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def is_occupied(vendor: Vendor) -> bool:
    """Tell whether any connection but one's own is open, or so many that there is no room for it."""
    try:
        return open_connections(vendor) > 1
    except AssertionError:
        return True


class Customer:
    """A buyer with one connection that stays open."""

    def __init__(self, vendor: Vendor, secret: str, source: str) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", vendor.port, timeout=SOON_SECONDS, source_address=(source, 0)
        )
        self._connection.connect()
        self._connection.auto_open = 0  # a connection that was closed stays closed, so that a purchase fails
        self._bearer = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    def buy(self, name: str) -> str:
        body = json.dumps(images(png(), keys=[item_key(name)]))
        self._connection.request("POST", "/v1/embeddings/images", body, self._bearer)
        answer = json.load(self._connection.getresponse())
        return str(answer["data"][0]["status"])

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def customer(vendor: Vendor, secret: str) -> Iterator[Callable[[str], Customer]]:
    with ExitStack() as stack:

        def arrive(source: str) -> Customer:
            arrived = Customer(vendor, secret, source)
            stack.callback(arrived.close)
            return arrived

        yield arrive


@pytest.mark.parametrize("sources", [ONE_ADDRESS, MANY_ADDRESSES], ids=["one address", "many addresses"])
@pytest.mark.parametrize("customers_address", ["127.0.0.1", "127.0.0.2"])
def test_half_sent_requests_stop_nobody(
    vendor: Vendor, customer: Callable[[str], Customer], sources: list[str], customers_address: str
) -> None:
    """Neither who comes, nor a customer whose connection was open before and idle, be it from the same address."""
    names = [f"{len(sources)} {customers_address} {number}" for number in range(3)]
    before = customer(customers_address)
    assert before.buy(names[0]) == "billed"
    log_bytes = vendor.log.stat().st_size
    with held_open(vendor, FLOOD, sources, HALF_SENT):
        for source in (customers_address, "127.0.0.3"):
            assert ask(vendor, "/healthz", source) == '{"status":"ok"}'
        assert before.buy(names[1]) == "billed"
        assert customer(customers_address).buy(names[2]) == "billed"
    assert vendor.log.stat().st_size - log_bytes < LOG_BYTES


def test_a_connection_has_a_deadline_for_its_first_request(vendor: Vendor) -> None:
    opened = time.monotonic()
    with held_open(vendor, 2, ONE_ADDRESS, HALF_SENT) as (dripping, silent):
        while time.monotonic() < opened + HEAD_SECONDS - 0.5:
            dripping.sendall(b"x")
            time.sleep(0.1)
        for connection in (dripping, silent):
            assert connection.recv(1) == b""
        assert HEAD_SECONDS <= time.monotonic() - opened < HEAD_SECONDS + 3


@contextmanager
def busy(vendor: Vendor, secret: str, count: int, sources: list[str]) -> Iterator[None]:
    """So many connections with a request that the vendor has begun to read."""
    head = f"POST /v1/embeddings/images HTTP/1.1\r\nHost: vendor\r\nAuthorization: Bearer {secret}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    with held_open(vendor, count, sources, head.encode()) as connections:
        for connection in connections:
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        yield


def answer_to(vendor: Vendor, source: str) -> str:
    with connect(vendor, source) as connection:
        connection.settimeout(SOON_SECONDS)
        return b"".join(iter(lambda: connection.recv(1000), b"")).decode()


def test_a_connection_without_room_is_told_so_at_once(vendor: Vendor, secret: str) -> None:
    log_bytes = vendor.log.stat().st_size
    with busy(vendor, secret, CONNECTIONS, MANY_ADDRESSES):
        for _ in range(100):
            head, _, body = answer_to(vendor, "127.0.0.2").partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 503 ")
            assert {"Retry-After: 1", "Connection: close", f"Content-Length: {len(body)}"} < set(head.split("\r\n"))
            assert json.loads(body)["code"] == "overloaded"
    assert vendor.log.stat().st_size - log_bytes < LOG_BYTES + 100 * CONNECTIONS  # one line for each request


def test_one_address_has_a_share_and_no_more(vendor: Vendor, secret: str) -> None:
    with busy(vendor, secret, SHARE, ONE_ADDRESS):
        assert answer_to(vendor, ONE_ADDRESS[0]).startswith("HTTP/1.1 503 ")
        assert ask(vendor, "/healthz", "127.0.0.2")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01",
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnothing\r\n",
    ],
    ids=["not HTTP", "another protocol", "a broken body of a request that is not served"],
)
def test_strange_requests_do_not_fill_the_log(vendor: Vendor, sent: bytes) -> None:
    log_bytes = vendor.log.stat().st_size
    for _ in range(50):
        with connect(vendor, "127.0.0.2", sent) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 40")
    assert vendor.log.stat().st_size - log_bytes < LOG_BYTES + 50 * 100
