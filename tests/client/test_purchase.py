"""Buying: paid once, delivered, whatever happens on the way."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import verify_holdings
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, DataError, NotAuthorized, VendorChanged, VendorUnavailable
from vl2v_client.planning.query_plan import Limits


def test_a_purchase_delivers_every_vector_and_a_second_one_sends_nothing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    queries = ask(draw_pictures(tmp_path / "data", 70), views=2)
    plan = plan_for(vendor, cache, queries, ["a photo of a cat", "a photo of a dog"])
    report = buy(plan, client, cache)
    assert (report.billed_units, report.replayed_units, report.amount_micro) == (142, 0, 140 * 100 + 2 * 10)
    vectors = cache.get_many([*plan.image_keys, *plan.text_keys])
    assert len(vectors) == 142
    by_content = {item.cache_key: vendor.vector(item.content_sha) for item in plan.missing}
    for key, vector in vectors.items():
        np.testing.assert_array_equal(vector, by_content[key].astype(np.float16))

    before = len(vendor.seen)
    again = buy(plan, client, cache)
    assert again.billed_units == 0
    assert len(vendor.seen) == before


def test_identical_content_is_bought_once(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "a", 3) + draw_pictures(tmp_path / "b", 3)
    plan = plan_for(vendor, cache, ask(samples), ["x", "x"])
    buy(plan, client, cache)
    assert vendor.billed_units == 4
    assert plan.image_keys[:3] == plan.image_keys[3:]


def test_a_lost_answer_is_asked_for_again_and_costs_nothing(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    dice, lock = random.Random(7), threading.Lock()

    def drop(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        with lock:
            lost = request.method == "POST" and dice.random() < 0.3
        if lost:
            raise httpx.ReadError("cut", request=request)
        return response

    vendor.max_items = 3
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 200)))
    vendor.after = drop
    with connect(vendor) as client:
        report = buy(plan, client, cache)
    assert vendor.billed_units == 200 == report.billed_units + report.replayed_units
    assert report.replayed_units > 0
    assert cache.missing(plan.image_keys) == []
    assert cache.purchases.outstanding("fake-ledger") == []
    assert all(row.vector and row.receipt for row in cache.records.paid_rows())


def test_what_was_sent_and_never_answered_is_fetched_free_by_the_next_purchase(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    queries = ask(draw_pictures(tmp_path / "data", 5))
    plan = plan_for(vendor, cache, queries)

    def drop(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadError("cut", request=request)
        return response

    vendor.after = drop
    with connect(vendor) as client, pytest.raises(VendorUnavailable, match="run the same command again"):
        buy(plan, client, cache)
    assert [len(keys) for keys in cache.purchases.outstanding("fake-ledger")] == [5]
    vendor.after = lambda _request, response: response
    with connect(vendor) as client:
        report = buy(plan, client, cache)
    assert (report.billed_units, report.replayed_units, vendor.billed_units) == (0, 5, 5)


def test_a_plan_above_the_budget_is_refused_before_anything_is_sent(
    client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = FakeVendor(budget=100)
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 150)))
    with connect(vendor) as poor, pytest.raises(BudgetExhausted, match="top-up of 50"):
        buy(plan, poor, cache)
    assert vendor.billed_units == 0


def test_a_partial_purchase_spends_exactly_the_rest_and_says_how_to_go_on(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = FakeVendor(budget=100)
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 150)))
    with connect(vendor) as client:
        with pytest.raises(BudgetExhausted, match="got 100 of 150"):
            buy(plan, client, cache, allow_partial=True)
        assert vendor.billed_units == 100
        assert len(cache.missing(plan.image_keys)) == 50
        vendor.post("topup", units=50)
        assert buy(plan, client, cache).billed_units == 50


def test_a_budget_that_others_empty_meanwhile_ends_the_purchase_with_everything_kept(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor = FakeVendor(budget=100, max_items=16)
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 60)))

    def spend(request: httpx.Request) -> None:
        if request.method == "POST" and len(vendor.posted) == 2:
            vendor.post("charge", units=70)

    vendor.before = spend
    with connect(vendor) as client, pytest.raises(BudgetExhausted, match="got 30 of 60"):
        buy(plan, client, cache, workers=1)
    assert len(cache.missing(plan.image_keys)) == 30
    assert cache.purchases.outstanding("fake-ledger") == []


def test_caps_are_refusals_or_stops(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 30)))
    with pytest.raises(BudgetExhausted, match=r"purchase\.max_queries"):
        buy(plan, client, cache, caps=Limits(max_queries=20))
    with pytest.raises(BudgetExhausted, match=r"purchase\.max_cost"):
        buy(plan, client, cache, caps=Limits(max_cost_micro=2999))
    assert vendor.billed_units == 0
    with pytest.raises(BudgetExhausted, match="got 20 of 30"):
        buy(plan, client, cache, caps=Limits(max_cost_micro=2099), allow_partial=True)
    assert vendor.billed_units == 20


def test_failed_queries_are_named_and_cost_nothing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 5)))
    vendor.bad_contents = {plan.missing[3].content_sha}
    with pytest.raises(DataError, match=r"00003\.png: not an image"):
        buy(plan, client, cache)
    assert vendor.billed_units == 4
    report = buy(plan, client, cache, skip_failed=True)
    assert [failed.name for failed in report.failed] == [str(tmp_path / "data" / "00003.png")]
    assert vendor.billed_units == 4


def test_a_file_that_changes_after_planning_is_noticed_before_it_is_sent(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 2)
    plan = plan_for(vendor, cache, ask(samples))
    Image.new("RGB", (12, 10), "red").save(samples[1].path)
    with pytest.raises(DataError, match=r"00001\.png has changed"):
        buy(plan, client, cache)
    assert vendor.billed_units == 0
    assert cache.purchases.outstanding("fake-ledger") == []


def test_a_price_or_model_that_moved_since_the_plan_stops_the_purchase(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 2)))
    vendor.prices["image"] = (3, 900)
    with pytest.raises(VendorChanged, match="plan anew"):
        buy(plan, client, cache)
    assert vendor.billed_units == 0


def test_a_price_that_moves_in_the_middle_stops_the_purchase(cache: EmbeddingCache, tmp_path: Path) -> None:
    vendor = FakeVendor(max_items=2)
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 6)))

    def raise_price(request: httpx.Request) -> None:
        if len(vendor.posted) == 2:
            vendor.prices["image"] = (3, 900)

    vendor.before = raise_price
    with connect(vendor) as client, pytest.raises(VendorChanged, match="price has changed"):
        buy(plan, client, cache, workers=1)
    assert vendor.billed_units == 2


def test_a_revoked_key_stops_at_once_and_nothing_stays_outstanding(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 2)))
    vendor.before = lambda request: vendor.problem(401, "key_revoked", "revoked") if request.method == "POST" else None
    with pytest.raises(NotAuthorized, match="VL2V_API_KEY"):
        buy(plan, client, cache)
    assert vendor.seen.count("POST /v1/embeddings/images") == 1
    assert cache.purchases.outstanding("fake-ledger") == []


def test_two_buyers_of_one_cache_pay_once(vendor: FakeVendor, tmp_path: Path) -> None:
    path = tmp_path / "client.db"
    vendor.max_items = 8
    with EmbeddingCache(path) as first, EmbeddingCache(path) as second:
        plan = plan_for(vendor, first, ask(draw_pictures(tmp_path / "data", 60)))

        def purchase(cache: EmbeddingCache) -> None:
            with connect(vendor) as client:
                buy(plan, client, cache)

        threads = [threading.Thread(target=purchase, args=(cache,)) for cache in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert first.missing(plan.image_keys) == []
        assert first.stats().vendors[0].sent_items == 0
    assert vendor.billed_units == 60


def test_a_result_past_its_retention_is_recomputed_free_under_a_signed_note(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 2)))
    keys = [item.item_key for item in plan.missing]
    with EmbeddingCache(cache.path) as other:  # same secret: the first purchase's answers get lost on this side
        buy(plan, client, other)
    other = EmbeddingCache(tmp_path / "fresh.db")
    assert other.item_secret != cache.item_secret
    other.close()
    vendor.expired = set(keys)
    delivery = client.replay(keys)
    assert {item.status for item in delivery.items} == {"recomputed"}
    assert all(item.recompute_json for item in delivery.items)


def test_progress_tells_money_and_counts(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int, dict[str, str]]] = []

    def progress(phase: str, done: int, total: int, extras: object = None) -> None:
        told.append((phase, done, total, dict(extras or {})))  # type: ignore[call-overload]

    buy(plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 5))), client, cache, progress=progress)
    assert told[-1] == ("buy", 5, 5, {"spent": "0.0005 EUR", "billed": "5", "replayed": "0"})


def test_receipts_of_a_key_that_changed_in_the_middle_can_be_checked_offline(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor.max_items = 4
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 12)))

    def rotate(request: httpx.Request) -> None:
        if request.method == "POST" and len(vendor.posted) == 2 and len(vendor.keys) == 1:
            vendor.rotate_key()

    vendor.before = rotate
    buy(plan, client, cache, workers=1)
    assert {row.receipt.key_id for row in cache.records.paid_rows() if row.receipt} == {k.key_id for k in vendor.keys}
    assert verify_holdings(cache).is_clean
