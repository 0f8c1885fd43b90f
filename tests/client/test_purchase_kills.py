"""kill -9 of a real buyer, at statements of its own ledger and at moments of the exchange: paid once, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.buying_child import purchase
from support.client.fake_vendor import FakeVendor, served
from support.forked import FORKSERVER
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache

PICTURES = 48


class Victim:
    """A buyer in its own process, and the means to kill it from within the vendor's answer."""

    def __init__(self, vendor: FakeVendor, url: str, folder: Path) -> None:
        self._vendor = vendor
        self._words = (url, folder / "client.db", folder / "data", PICTURES)
        self._process: ForkServerProcess | None = None
        self._started = threading.Event()

    def run(
        self, *, kill_at_statement: int = 0, kill_at_request: int = 0, after_charge: bool = False, gently: bool = False
    ) -> int:
        posts = 0
        lock = threading.Lock()

        def kill(request: httpx.Request) -> None:
            nonlocal posts
            with lock:
                posts += request.method == "POST"
                due = request.method == "POST" and posts == kill_at_request
            if due:
                self._started.wait()
                assert self._process is not None
                if gently:
                    os.kill(self._process.pid or 0, signal.SIGINT)
                else:
                    self._process.kill()

        def kill_after(request: httpx.Request, response: httpx.Response) -> httpx.Response:
            kill(request)
            return response

        self._vendor.before = (lambda _request: None) if after_charge else kill
        self._vendor.after = kill_after if after_charge else lambda _request, response: response
        self._started.clear()
        self._process = FORKSERVER.Process(target=purchase, args=(*self._words, kill_at_statement))
        self._process.start()
        self._started.set()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def test_an_interrupted_buyer_stores_what_is_under_way_and_goes_on_later(tmp_path: Path) -> None:
    vendor = FakeVendor(max_items=4)
    with served(vendor) as url:
        victim = Victim(vendor, url, tmp_path)
        assert victim.run(kill_at_request=3, gently=True) == 1
        with EmbeddingCache(tmp_path / "client.db") as cache:
            stats = cache.stats().vendors[0]
            assert (stats.sent_items, stats.paid_items) == (0, vendor.billed_units)
            assert 0 < vendor.billed_units < PICTURES
        assert victim.run() == 0
    assert vendor.billed_units == PICTURES


@pytest.mark.parametrize("seed", [0])
def test_a_buyer_killed_ten_times_pays_once(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    vendor = FakeVendor(max_items=4)
    kills = 0
    with served(vendor) as url:
        victim = Victim(vendor, url, tmp_path)
        for attempt in range(5):
            kills += victim.run(kill_at_statement=dice.randrange(1, 60)) == -9
            kills += victim.run(kill_at_request=dice.randrange(1, 3), after_charge=attempt % 2 == 0) == -9
        assert victim.run() == 0
    assert kills == 10
    assert vendor.billed_units == PICTURES
    with EmbeddingCache(tmp_path / "client.db") as cache, connect(vendor) as client:
        plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", PICTURES)))
        assert plan.missing == ()
        assert buy(plan, client, cache).replayed_units == 0
        rows = list(cache.records.paid_rows())
        assert len(rows) == PICTURES
        assert all(row.vector is not None and row.receipt is not None for row in rows)
        report = audit_bill(client, cache)
        assert report.is_clean
        assert report.matched_items == PICTURES
