"""Two processes on one cache: purchases take turns, say so, and a killed one holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import pytest

from support.client.buying_child import command
from support.client.fake_vendor import API_KEY, FakeVendor, served
from support.forked import FORKSERVER
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import CacheError
from vl2v_client.data.shapes import write_shapes

WAITS = "another purchase is using the cache"
REPLAY = "/v1/embeddings/replay"
CHECKS_OF_THE_KEY = 2  # each purchase asks with an empty replay whether its key may buy

Start = Callable[[str], ForkServerProcess]


class Counter:
    """Holds the vendor's sales back until they are let go; a replay, which each purchase begins with, is none."""

    def __init__(self, vendor: FakeVendor) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        vendor.before = self._before

    def _before(self, request: httpx.Request) -> None:
        if request.method == "POST" and request.url.path != REPLAY:
            self.reached.set()
            assert self.let_go.wait(60)


@pytest.fixture
def counter(vendor: FakeVendor) -> Iterator[Counter]:
    counter = Counter(vendor)
    yield counter
    counter.let_go.set()


@pytest.fixture
def start(vendor: FakeVendor, tmp_path: Path) -> Iterator[Start]:
    """Starts the client's command line, all on one cache and one data set, each with a log of its own."""
    write_shapes(tmp_path / "data", seed=7, styles=("photo",), images_per_class=6, class_names=("fish", "key"), size=32)
    started: list[ForkServerProcess] = []
    with served(vendor) as url:
        party = ["--vendor-url", url, "--api-key", API_KEY, "--cache", str(tmp_path / "client.db")]
        words = ["buy", "--data", str(tmp_path / "data"), "--views", "2", "--yes", "--json", *party]

        def begin(name: str) -> ForkServerProcess:
            process = FORKSERVER.Process(target=command, args=(words, tmp_path / name))
            process.start()
            started.append(process)
            return process

        yield begin
        for process in started:
            process.kill()
            process.join()


def test_a_second_purchase_waits_for_the_first_and_takes_nothing_back(
    vendor: FakeVendor, counter: Counter, start: Start, tmp_path: Path
) -> None:
    first = start("first")
    assert counter.reached.wait(60)
    second = start("second")
    wait_for_text(tmp_path / "second", WAITS)
    assert (second.is_alive(), vendor.billed_units) == (True, 0)
    counter.let_go.set()
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert vendor.seen.count(f"POST {REPLAY}") == CHECKS_OF_THE_KEY
    with EmbeddingCache(tmp_path / "client.db") as cache:
        stats = cache.stats().vendors[0]
    assert (stats.paid_items, stats.sent_items) == (vendor.billed_units, 0)
    assert WAITS not in (tmp_path / "first").read_text()


def test_a_killed_purchase_gives_its_turn_away(
    vendor: FakeVendor, counter: Counter, start: Start, tmp_path: Path
) -> None:
    first = start("first")
    assert counter.reached.wait(60)
    second = start("second")
    wait_for_text(tmp_path / "second", WAITS)
    first.kill()
    counter.let_go.set()
    second.join(60)
    assert second.exitcode == 0
    assert vendor.seen.count(f"POST {REPLAY}") > CHECKS_OF_THE_KEY
    with EmbeddingCache(tmp_path / "client.db") as cache:
        stats = cache.stats().vendors[0]
    assert (stats.paid_items, stats.sent_items) == (vendor.billed_units, 0)


def test_reading_needs_no_turn_and_a_lock_that_cannot_be_had_is_named(cache: EmbeddingCache) -> None:
    with cache.purchase_lock(pytest.fail), EmbeddingCache(cache.path) as other:
        assert other.stats().vendors == ()
        assert other.missing(["00" * 32]) == ["00" * 32]
    lock = Path(f"{cache.path}.lock")
    lock.unlink()
    lock.mkdir()
    with (
        pytest.raises(CacheError, match=r"client\.db\.lock cannot be locked: Is a directory.*purchase.cache"),
        cache.purchase_lock(pytest.fail),
    ):
        pass


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} never said {text!r}"
        time.sleep(0.01)
