"""Lost answers and repeated requests between the real client and the real vendor: billed once, all delivered."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.adversary.lossy_proxy import LossyProxy, between
from support.client.buying_bench import ask, buy, draw_pictures, meet_vendor
from support.vendor.live_parties import Vendor, free_port
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorUnavailable
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import QueryPlan, make_plan

MAX_PURCHASE = 1000
PATIENT = RetryPolicy(max_attempts=50)


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    opened = Vendor(tmp_path / "vendor", free_port())
    opened.start()
    yield opened
    opened.stop()


class Wanderer:
    """A client behind the lossy network, which starts anew in other batches whenever it gives up."""

    def __init__(self, url: str, api_key: str, cache: EmbeddingCache, dice: random.Random) -> None:
        self._url, self._api_key = url, api_key
        self._cache = cache
        self._dice = dice
        self.purchases = self.broken_off = 0

    def connect(self, policy: RetryPolicy) -> VendorClient:
        return VendorClient(self._url, self._api_key, policy=policy, sleep=lambda _seconds: None)

    def plan(self, folder: Path, items: int) -> QueryPlan:
        with self.connect(PATIENT) as client:
            teacher = meet_vendor(client, self._cache)
        images = ask(draw_pictures(folder, items // 4))
        texts = [TextQuery(f"text {number}") for number in range(items - len(images))]
        return make_plan(images, texts, teacher, self._cache)

    def buy_some(self, plan: QueryPlan) -> None:
        """Buy a random part of the plan in batches of a random size; what earlier purchases lost comes first."""
        dice = self._dice
        items = dice.sample(plan.missing, min(len(plan.missing), dice.randint(1, MAX_PURCHASE)))
        teacher = replace(plan.teacher, max_items=round(2 ** dice.uniform(0, 8)))
        part = replace(plan, teacher=teacher, missing=tuple(sorted(items, key=lambda item: item.modality)))
        self.purchases += 1
        with self.connect(RetryPolicy(max_away_seconds=dice.randint(0, 1))) as client:  # up to three attempts
            try:
                buy(part, client, self._cache, workers=dice.randint(1, 4))
            except VendorUnavailable:
                self.broken_off += 1


@pytest.mark.timeout(3600)
def test_a_lossy_network_costs_nothing(
    vendor: Vendor, tmp_path: Path, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    items = scale(400, 10_000)
    api_key = vendor.create_key("wanderer", 10 * items)
    proxy = LossyProxy(vendor.port, loss=0.3, repetition=0.1, seed=5)
    with EmbeddingCache(tmp_path / "client.db") as cache, between(proxy) as url:
        wanderer = Wanderer(url, api_key, cache, random.Random(7))
        plan = wanderer.plan(tmp_path / "pictures", items)
        while left := len(cache.missing(item.cache_key for item in plan.missing)):
            wanderer.buy_some(plan)
            sys.stderr.write(f"{left} items left after {proxy.requests} requests\n")
        with wanderer.connect(PATIENT) as client:
            report = audit_bill(client, cache)
            billed = client.summary().used_units
        stats = cache.stats().vendors[0]
    prove("items billed over a lossy network", billed, goal=f"{items}, each once", met=billed == items == plan.units)
    prove("items delivered over a lossy network", stats.paid_items, goal=f"{items}", met=stats.paid_items == items)
    prove("audit after the lossy network", str(report.is_clean), goal="clean", met=report.is_clean)
    assert (stats.sent_items, stats.billed_units, report.matched_items) == (0, items, items)
    assert min(wanderer.broken_off, proxy.lost, proxy.repeated) > 0
    per_item = round(proxy.items_sent / items, 2)
    prove("requests that an item took over a lossy network", per_item, goal="below 4", met=per_item < 4)
