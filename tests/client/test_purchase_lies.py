"""A vendor that bills otherwise than agreed: the client stops there, and its own caps hold whatever it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import ask, buy, draw_pictures, plan_for
from support.client.fake_ledger import Body
from support.client.fake_vendor import API_KEY, FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, DataError, VendorChanged, VendorError
from vl2v_client.planning.query_plan import Limits, QueryPlan

SALE = "POST /v1/embeddings/images"


def billing(units: int | None = None, **changes: int) -> Callable[[FakeVendor, Body], Body]:
    """Every charge is posted again with these changes, properly signed."""

    def overbill(vendor: FakeVendor, body: Body) -> Body:
        honest = vendor.posted.pop()
        vendor.used_units -= honest.entry.units
        posted = vendor.post("charge", units or honest.entry.units, honest.items, "image", **changes)
        vendor.lie = lambda _path, told: told  # a replay tells the truth about the lie
        usage = {**body["usage"], "amount_micro": posted.entry.amount_micro, "billed_units": posted.entry.units}
        return {**body, "receipt": vendor.receipt(posted), "usage": usage}

    return overbill


@pytest.fixture
def plan(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> QueryPlan:
    """Six pictures in requests of two."""
    vendor.max_items = 2
    return plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 6)))


def lie_once(vendor: FakeVendor, lie: Callable[[FakeVendor, Body], Body]) -> None:
    vendor.lie = lambda path, body: lie(vendor, body) if path.endswith("/images") else body


def test_a_charge_at_another_price_stops_the_purchase_and_the_next_one(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, plan: QueryPlan
) -> None:
    lie_once(vendor, billing(unit_price_micro=900, amount_micro=1800))
    with pytest.raises(VendorChanged, match="unit price is 900, not 100 as agreed"):
        buy(plan, client, cache, workers=1)
    with pytest.raises(VendorChanged, match=r"charged 0\.0009 EUR for each query .* never agreed to"):
        buy(plan, client, cache, workers=1)
    assert vendor.seen.count(SALE) == 1
    assert "price_mismatch" in audit_bill(client, cache).findings.counts
    assert buy(plan, client, cache).billed_units == 4  # the user has seen it and goes on


def test_a_charge_at_another_price_is_seen_when_its_first_answer_was_lost(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, plan: QueryPlan
) -> None:
    def lose_the_first(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method == "POST" and vendor.seen.count(SALE) == 1:
            raise httpx.ReadTimeout("lost", request=request)
        return answer

    vendor.after = lose_the_first
    lie_once(vendor, billing(unit_price_micro=900, amount_micro=1800))
    with pytest.raises(VendorChanged, match=r"charged 0\.0009 EUR for each query .* never agreed to"):
        buy(plan, client, cache, workers=1)
    assert vendor.seen.count(SALE) == 2
    assert vendor.billed_units == 2


def test_a_charge_of_more_units_than_asked_stops_the_purchase_and_the_next_one(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, plan: QueryPlan
) -> None:
    lie_once(vendor, billing(units=3, amount_micro=300))
    with pytest.raises(VendorError, match="2 items were billed, but 3 units"):
        buy(plan, client, cache, workers=1)
    with pytest.raises(VendorError, match="2 items cost 3 units"):
        buy(plan, client, cache, workers=1)
    assert vendor.seen.count(SALE) == 1
    assert cache.stats().vendors[0].paid_items == 0


@pytest.mark.parametrize("caps", [Limits(max_queries=4), Limits(max_cost_micro=400)])
@pytest.mark.parametrize("claim", ["nothing was billed", "every item failed"])
def test_caps_count_what_was_asked_whatever_the_vendor_claims(
    caps: Limits, claim: str, vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, plan: QueryPlan
) -> None:
    def deny(body: Body) -> Body:
        if claim == "nothing was billed":
            usage = {**body["usage"], "billed_units": 0, "amount_micro": 0}
            return {**body, "usage": usage, "receipt": None}
        error = {"code": "encoding_failed", "detail": "try again"}
        failed = [{"index": i, "item_key": one["item_key"], "status": "failed", "error": error} for i, one in
                  enumerate(body["data"])]  # fmt: skip
        return {**body, "data": failed, "usage": {**body["usage"], "billed_units": 0}, "receipt": None}

    vendor.lie = lambda path, body: deny(body) if path.endswith("/images") else body
    with pytest.raises((VendorError, BudgetExhausted)):
        buy(plan, client, cache, caps=caps, allow_partial=True, workers=1)
    assert 2 <= vendor.billed_units <= 4


def call_expired(vendor: FakeVendor, *paths: str) -> None:
    """Every item sent there is said to be charged, and its vector no longer kept."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST" or request.url.path not in paths:
            return None
        body = json.loads(request.content)
        count = len(body.get("items") or body["item_keys"])
        items = [{"index": i, "code": "result_expired", "detail": "entry 7 paid for it"} for i in range(count)]
        return vendor.problem(422, "all_items_failed", items=items)

    vendor.before = answer


def test_what_the_vendor_calls_charged_and_expired_it_cannot_charge(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache
) -> None:
    words = ("a", "b", "c")
    call_expired(vendor, "/v1/embeddings/texts")
    with pytest.raises(DataError, match="3 queries got no vector"):
        buy(plan_for(vendor, cache, [], words), client, cache)
    call_expired(vendor, "/v1/embeddings/replay")
    vendor.prices["text"] = (9, 500)
    for complaint in ("a request that should be free came with a charge", "a price that was never agreed to"):
        plan = plan_for(vendor, cache, [], words)
        assert (plan.units, len(plan.missing)) == (0, 3)
        with pytest.raises(VendorError, match=complaint):
            buy(plan, client, cache, caps=Limits(max_queries=0, max_cost_micro=0))
    assert audit_bill(client, cache).findings.counts.keys() == {"price_mismatch"}


def test_what_the_vendor_no_longer_calls_charged_is_planned_anew_before_it_is_bought(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache
) -> None:
    call_expired(vendor, "/v1/embeddings/texts")
    with pytest.raises(DataError):
        buy(plan_for(vendor, cache, [], ("a", "b")), client, cache)
    vendor.before = lambda _request: None
    with pytest.raises(VendorChanged, match="no longer knows 2 of the queries"):
        buy(plan_for(vendor, cache, [], ("a", "b")), client, cache)
    plan = plan_for(vendor, cache, [], ("a", "b"))
    assert (vendor.billed_units, plan.units) == (0, 2)
    assert buy(plan, client, cache).billed_units == 2


def test_the_api_key_is_in_no_error_and_no_log(
    vendor: FakeVendor,
    client: VendorClient,
    cache: EmbeddingCache,
    plan: QueryPlan,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    said = [repr(client)]
    refusals: list[httpx.Response | type[httpx.TransportError]] = [
        vendor.problem(401, "key_revoked"), vendor.problem(402, "budget_exhausted"), vendor.problem(503, "overloaded"),
        httpx.Response(500, text="<html>"), httpx.ReadTimeout, httpx.LocalProtocolError,
    ]  # fmt: skip
    for refusal in refusals:

        def refuse(request: httpx.Request, refusal: object = refusal) -> httpx.Response:
            if isinstance(refusal, httpx.Response):
                return httpx.Response(refusal.status_code, headers=refusal.headers, content=refusal.content)
            raise refusal("broken", request=request)  # type: ignore[operator]

        vendor.before = refuse
        with pytest.raises(Exception, match=r".") as caught:
            buy(plan, client, cache)
        said += [repr(caught.value), str(caught.value)]
    assert len(said) == 13
    assert API_KEY not in "\n".join([*said, caplog.text])
    assert caplog.records
