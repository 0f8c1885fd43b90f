"""Answers that were lost and that the vendor no longer keeps: charged once, remembered as such, computed again free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import buy, meet_vendor
from support.proofs.billing_world import Shopfront, database_maker
from support.vendor.vendor_in_process import AppTransport
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.audit_report import Difference
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, VendorChanged, VendorUnavailable
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import Limits, QueryPlan, make_plan
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.ledger_sql.sql_ledger import prune_results

BUDGET = 6
LOST = ("a cat", "a dog", "a house")


class Shop:
    """A vendor that really runs, an account of few queries, and a client whose answers can be lost."""

    def __init__(self, front: Shopfront, folder: Path) -> None:
        self.front = front
        self.account = front.accounts.create_account("acme", budget_units=BUDGET)
        self.is_losing = False
        self.requests: list[httpx.Request] = []
        self.client = self.client_of(self.account)
        self.cache = EmbeddingCache(folder / "client.db")

    def client_of(self, account_id: str) -> VendorClient:
        """A client with a new key of an account."""
        _, secret = self.front.accounts.create_key(account_id, scopes=frozenset({"embed", "billing"}))
        transport = httpx.MockTransport(self.answer)
        return VendorClient("http://vendor", secret, transport=transport, sleep=lambda _seconds: None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = AppTransport(self.front.apps[0], self.front.loop).handle_request(request)
        if self.is_losing and request.method == "POST":
            raise httpx.ReadError("lost", request=request)
        return answer

    @property
    def used_units(self) -> int:
        return self.front.accounts.find_account("acme").budget.used_units

    def plan(self, *words: str) -> QueryPlan:
        teacher = meet_vendor(self.client, self.cache)
        return make_plan([], [TextQuery(word) for word in words], teacher, self.cache)

    def lose(self, *words: str, caps: Limits | None = None) -> None:
        """Buy words whose answers never arrive."""
        self.is_losing = True
        with pytest.raises(VendorUnavailable):
            buy(self.plan(*words), self.client, self.cache, caps=caps, allow_partial=True)
        self.is_losing = False

    def expire(self) -> None:
        """Let the time pass for which the vendor keeps vectors."""
        self.front.clock.move(50)
        prune_results(self.front.engine, self.front.clock)

    def lose_and_expire(self, *words: str) -> None:
        self.lose(*words)
        self.expire()


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


@pytest.mark.parametrize("caps", [Limits(), Limits(max_queries=0), Limits(max_cost_micro=0)])
def test_the_same_purchase_gets_it_free_when_budget_and_caps_are_spent(shop: Shop, caps: Limits) -> None:
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
    report = buy(old, shop.client, shop.cache, caps=Limits(max_queries=3))
    assert (report.billed_units, report.replayed_units, shop.used_units) == (3, 3, BUDGET)


def test_what_is_charged_comes_before_what_the_budget_cannot_hold(shop: Shop) -> None:
    shop.lose_and_expire(*LOST)
    plan = shop.plan("1", "2", "3", "4", *LOST)
    with pytest.raises(BudgetExhausted, match="got 6 of 7"):
        buy(plan, shop.client, shop.cache, allow_partial=True)
    assert shop.plan(*LOST).missing == ()
    assert audit_bill(shop.client, shop.cache).is_clean


def test_a_cap_over_several_calls_counts_what_was_charged_and_has_expired(shop: Shop) -> None:
    words, caps = [f"word {number}" for number in range(9)], Limits(max_queries=4, task="one run")
    shop.lose(*words, caps=caps)
    assert shop.used_units == 4
    for _ in range(2):
        shop.expire()
        with pytest.raises(BudgetExhausted, match=r"purchase\.max_queries allows 4, and 4 queries are bought"):
            buy(shop.plan(*words), shop.client, shop.cache, caps=caps, allow_partial=True)
    assert shop.used_units == 4
    assert len(shop.plan(*words).missing) == 5


def test_a_cap_that_is_spent_does_not_stand_before_what_is_charged(shop: Shop) -> None:
    shop.lose(*LOST, caps=Limits(task="one run"))
    shop.expire()
    caps = Limits(max_queries=2, max_cost_micro=0, task="one run")
    assert buy(shop.plan(*LOST), shop.client, shop.cache, caps=caps).replayed_units == 3


def test_what_came_free_does_not_count_for_a_cap_over_several_calls(shop: Shop) -> None:
    shop.lose_and_expire(*LOST)
    caps = Limits(max_queries=2, task="one run")
    buy(shop.plan(*LOST), shop.client, shop.cache, caps=caps)
    buy(shop.plan(*LOST, "x", "y"), shop.client, shop.cache, caps=caps)
    assert shop.used_units == 5


def test_a_charge_that_landed_after_it_was_asked_for_comes_free_too(shop: Shop) -> None:
    class Killed(BaseException):
        pass

    def die(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            request.read()
            late.append(request)
            raise Killed
        return shop.answer(request)

    late: list[httpx.Request] = []
    dying = shop.client_of(shop.account)
    dying._http = httpx.Client(
        base_url="http://vendor", headers=dying._http.headers, transport=httpx.MockTransport(die)
    )
    with pytest.raises(Killed):
        buy(shop.plan(*LOST), dying, shop.cache)
    buy(shop.plan("x", "y", "z"), shop.client, shop.cache)  # hears that the three were never charged
    shop.answer(late[0])
    assert shop.used_units == BUDGET
    shop.expire()
    report = audit_bill(shop.client, shop.cache, recover=True, settle_seconds=0)
    assert report.findings.counts == {Difference.LOST_RESPONSE: 3}
    buy(shop.plan(*LOST), shop.client, shop.cache, caps=Limits(max_queries=0))
    assert audit_bill(shop.client, shop.cache).is_clean


@pytest.mark.parametrize("is_known", [False, True])
def test_another_account_s_key_does_not_pay_for_what_was_lost(shop: Shop, is_known: bool) -> None:
    shop.lose_and_expire(*LOST)
    if is_known:
        audit_bill(shop.client, shop.cache, recover=True, settle_seconds=0)
    beta = shop.front.accounts.create_account("beta", budget_units=100)
    with pytest.raises(VendorChanged, match=r"another purchase\.cache"):
        buy(shop.plan(*LOST), shop.client_of(beta), shop.cache)
    assert shop.front.accounts.find_account("beta").budget.used_units == 0
    assert buy(shop.plan(*LOST), shop.client, shop.cache, caps=Limits(max_queries=0)).replayed_units == 3


def test_an_answer_of_a_model_that_is_no_longer_served_is_asked_for_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.lose_and_expire(*LOST)
    served = HashEncoder.info.func
    other = property(lambda encoder: replace(served(encoder), id="model-b", weights_sha="b" * 64))
    monkeypatch.setattr(HashEncoder, "info", other)
    shop.front.restart()
    for word in ("x", "y"):
        buy(shop.plan(word), shop.client, shop.cache)
    asked = [request.url.path for request in shop.requests if request.url.path.endswith("/replay")]
    assert (len(asked), shop.cache.stats().vendors[0].sent_items) == (1, 3)


def test_what_other_purchases_left_is_not_counted_as_got(shop: Shop) -> None:
    shop.lose(*LOST)
    with pytest.raises(BudgetExhausted, match="got 3 of 5"):
        buy(shop.plan("1", "2", "3", "4", "5"), shop.client, shop.cache, allow_partial=True)
