"""kill -9 of the real `buy` against the real vendor: every item is paid once and both ledgers agree to the unit."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.client.buying_child import KillPoint, command
from support.forked import FORKSERVER
from support.vendor.live_parties import Vendor, free_port
from vl2v_client.audit.bill import verify_holdings
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.data.shapes import write_shapes

BUDGET = 1_000_000
MOMENTS = ("statement", "statement", "before sending", "under way", "headers in", "answer in", "any")


class Buyer:
    """The client's command line, again and again on one cache; each seed of views is a new purchase."""

    def __init__(self, vendor: Vendor, folder: Path, dice: random.Random) -> None:
        self._vendor = vendor
        self._dice = dice
        self._log = folder / "buyer.log"
        self.cache = folder / "client.db"
        self._party = ("--vendor-url", vendor.url, "--api-key", vendor.create_key("buyer", BUDGET))
        self._party = (*self._party, "--cache", str(self.cache), "--json")
        self._data = folder / "shapes"
        write_shapes(self._data, seed=7, styles=("photo",), images_per_class=5, class_names=("fish", "key"), size=32)
        self.purchases = 0
        self.seconds = 1.0
        self.deaths: Counter[str] = Counter()

    def run(self, *words: str, point: KillPoint | None = None, seconds: float | None = None) -> int:
        """One command in a process of its own, killed at `point` or after some seconds; returns its exit code."""
        process = FORKSERVER.Process(target=command, args=([*words, *self._party], self._log, point))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        assert code in (0, -9), self._log.read_text()[-2000:]
        return code

    def buy(self, point: KillPoint | None = None, seconds: float | None = None) -> int:
        words = ("buy", "--data", str(self._data), "--views", "4", "--seed", str(self.purchases), "--yes")
        code = self.run(*words, point=point, seconds=seconds)
        self.purchases += code == 0
        return code

    def buy_in_peace(self) -> None:
        started = time.monotonic()
        assert self.buy() == 0
        self.seconds = time.monotonic() - started

    def buy_and_die(self) -> None:
        """Kill the buyer at a moment drawn at random; it may be done before."""
        moment = self._dice.choice(MOMENTS)
        if moment == "any":
            code = self.buy(seconds=self._dice.uniform(0.0, self.seconds))
        else:
            code = self.buy(KillPoint(moment, self._dice.randrange(1, 120 if moment == "statement" else 6)))
        self.deaths[moment] += code == -9


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    opened = Vendor(tmp_path / "vendor", free_port(), {"VL2V_VENDOR_MAX_ITEMS": "4"})
    opened.start()
    yield opened
    opened.stop()


@pytest.mark.timeout(3600)
def test_a_buyer_killed_at_any_moment_pays_every_item_once(
    vendor: Vendor, tmp_path: Path, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    wanted, between_audits = scale(30, 1000), scale(15, 100)
    buyer = Buyer(vendor, tmp_path, random.Random(3))
    buyer.buy_in_peace()
    audits = 0
    while (kills := buyer.deaths.total()) < wanted:
        buyer.buy_and_die()
        if buyer.deaths.total() > kills and buyer.deaths.total() % between_audits == 0:
            buyer.buy_in_peace()
            assert buyer.run("audit") == 0
            audits += 1
            sys.stderr.write(f"{buyer.deaths.total()} kills, {buyer.purchases} purchases, {audits} audits\n")
    prove("client kills", kills, goal=f"{wanted}, at every moment", met=len(buyer.deaths) == len(set(MOMENTS)))
    prove("audits between client kills", audits, goal="all clean", met=audits == wanted // between_audits)
    with EmbeddingCache(buyer.cache) as cache:
        holdings, stats = verify_holdings(cache), cache.stats().vendors[0]
    assert (stats.sent_items, stats.billed_units) == (0, stats.paid_items)
    sound = holdings.items - holdings.damage.total()
    prove("items with embedding and receipt", sound, goal="all paid", met=sound == stats.paid_items > 0)
    report = vendor.command("ledger", "verify", "--json")
    assert report.code == 0, report.out
    charged = vendor.command("accounts", "list", "--json")
    used = next(row["budget"]["used_units"] for row in charged.json() if row["name"] == "buyer")  # type: ignore[attr-defined]
    prove(
        "units on the vendor's bill",
        used,
        goal=f"{stats.paid_items}, as in the client's ledger",
        met=used == stats.paid_items,
    )
