"""Answers that were lost and that the vendor no longer keeps: charged once, remembered as such, computed again free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from billing_world import Shopfront, database_maker
from vendor_in_process import AppTransport
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import audit_bill
from vl2v_client.audit.report import Difference
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, VendorUnavailable
from vl2v_client.planning.plan import QueryPlan, make_plan
from vl2v_client.planning.purchase import Caps, buy
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.vendor import meet_vendor
from vl2v_vendor.adapters.sql.retention import prune_results

BUDGET = 6
LOST = ("a cat", "a dog", "a house")


class Shop:
    """A vendor that really runs, an account of few queries, and a client whose answers can be lost."""

    def __init__(self, front: Shopfront, folder: Path) -> None:
        self.front = front
        self.account = front.accounts.create_account("acme", budget_units=BUDGET)
        _, secret = front.accounts.create_key(self.account, scopes=frozenset({"embed", "billing"}))
        self.is_losing = False
        self.client = VendorClient(
            "http://vendor", secret, transport=httpx.MockTransport(self._answer), sleep=lambda _seconds: None
        )
        self.cache = EmbeddingCache(folder / "client.db")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = AppTransport(self.front.apps[0], self.front.loop).handle_request(request)
        if self.is_losing and request.method == "POST":
            raise httpx.ReadError("lost", request=request)
        return answer

    @property
    def used_units(self) -> int:
        return self.front.accounts.find_account("acme").budget.used_units

    def plan(self, *words: str) -> QueryPlan:
        teacher = meet_vendor(self.client, self.cache).teacher
        return make_plan([], [TextQuery(word) for word in words], teacher, self.cache)

    def lose_and_expire(self, *words: str) -> None:
        """Buy words whose answers never arrive, until the vendor no longer keeps them."""
        self.is_losing = True
        with pytest.raises(VendorUnavailable):
            buy(self.plan(*words), self.client, self.cache)
        self.is_losing = False
        self.front.clock.move(50)
        prune_results(self.front.engine, self.front.clock)


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    front = Shopfront(database_maker("sqlite", request, tmp_path), tmp_path)
    opened = Shop(front, tmp_path)
    yield opened
    opened.client.close()
    opened.cache.close()
    front.close()


def test_a_charge_stays_known_when_another_purchase_finds_its_answer_expired(shop: Shop) -> None:
    shop.lose_and_expire(*LOST)
    buy(shop.plan("a tree"), shop.client, shop.cache)
    [vendor] = shop.cache.stats().vendors
    assert (shop.used_units, vendor.paid_items, vendor.sent_items) == (4, 1, 3)
    report = audit_bill(shop.client, shop.cache, settle_seconds=0)
    assert report.findings.counts == {Difference.LOST_RESPONSE: 3}


@pytest.mark.parametrize("caps", [Caps(), Caps(max_queries=0), Caps(max_cost_micro=0)])
def test_the_same_purchase_gets_it_free_when_budget_and_caps_are_spent(shop: Shop, caps: Caps) -> None:
    shop.lose_and_expire(*LOST)
    buy(shop.plan("x", "y", "z"), shop.client, shop.cache)
    assert shop.used_units == BUDGET
    plan = shop.plan(*LOST)
    assert (plan.units, plan.amount_micro, len(plan.missing)) == (0, 0, 3)
    report = buy(plan, shop.client, shop.cache, caps=caps)
    assert (report.billed_units, report.replayed_units, shop.used_units) == (0, 3, BUDGET)
    assert shop.plan(*LOST).missing == ()
    assert audit_bill(shop.client, shop.cache).is_clean


def test_a_plan_made_before_the_answer_expired_counts_it_as_charged(shop: Shop) -> None:
    old = shop.plan(*LOST, "x", "y", "z")
    shop.lose_and_expire(*LOST)
    report = buy(old, shop.client, shop.cache, caps=Caps(max_queries=3))
    assert (report.billed_units, report.replayed_units, shop.used_units) == (3, 3, BUDGET)


def test_what_is_charged_comes_before_what_the_budget_cannot_hold(shop: Shop) -> None:
    shop.lose_and_expire(*LOST)
    plan = shop.plan("1", "2", "3", "4", *LOST)
    with pytest.raises(BudgetExhausted, match="got 6 of 7"):
        buy(plan, shop.client, shop.cache, allow_partial=True)
    assert shop.plan(*LOST).missing == ()
    assert audit_bill(shop.client, shop.cache).is_clean
