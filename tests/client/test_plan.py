"""Planning: every distinct content once, priced, at no cost; and fast the second time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.client.buying_bench import ask, buy, connect, draw_pictures, meet_vendor, plan_for
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.buying.buyer import cut_batches
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.rendering import render_view
from vl2v_client.planning import queries as planned_queries
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import Limits, QueryPlan, make_plan
from vl2v_contract.identity import EmbeddingIdentity


def test_a_plan_counts_and_prices_what_is_missing(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    samples = draw_pictures(tmp_path / "data", 5)
    plan = plan_for(vendor, cache, ask(samples, views=3), ["a cat", "a dog", "a cat"])
    assert (plan.image_files, len(plan.image_keys), len(plan.text_keys)) == (5, 15, 3)
    assert (plan.units, plan.cached) == (17, 0)
    assert (plan.amount_micro, plan.currency) == (15 * 100 + 2 * 10, "EUR")
    assert [item.modality for item in plan.missing] == ["text"] * 2 + ["image"] * 15
    assert plan.text_keys[0] == plan.text_keys[2]
    assert vendor.seen == ["GET /v1/models", "GET /v1/billing/keys"]


def test_a_second_plan_counts_hits_and_knows_the_rate(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 80)
    assert plan_for(vendor, cache, ask(samples)).seconds is None
    buy(plan_for(vendor, cache, ask(samples)), client, cache)
    plan = plan_for(vendor, cache, ask(samples, views=2))
    assert (plan.units, plan.cached) == (80, 80)
    assert plan.seconds is not None
    assert plan.seconds > 0


def test_paths_and_order_change_no_key(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    here, there = draw_pictures(tmp_path / "a", 4), draw_pictures(tmp_path / "b", 4)
    first = plan_for(vendor, cache, ask(here))
    second = plan_for(vendor, cache, ask(list(reversed(there))))
    assert first.image_keys == tuple(reversed(second.image_keys))


def test_a_second_plan_opens_no_image(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ask(draw_pictures(tmp_path / "data", 6), views=2)
    first = plan_for(vendor, cache, queries)

    def refuse(path: Path) -> Image.Image:
        raise AssertionError(f"{path} was opened")

    for name in ("load_rgb", "image_size"):
        monkeypatch.setattr(f"vl2v_client.data.images.{name}", refuse)
    assert plan_for(vendor, cache, queries).image_keys == first.image_keys


def test_a_file_that_changed_is_planned_anew(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    samples = draw_pictures(tmp_path / "data", 2)
    first = plan_for(vendor, cache, ask(samples))
    Image.new("RGB", (12, 10), "blue").save(samples[0].path)
    second = plan_for(vendor, cache, ask(samples))
    assert first.image_keys[0] != second.image_keys[0]
    assert first.image_keys[1] == second.image_keys[1]


def test_a_file_with_the_old_size_and_time_stamp_is_read_again(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    (sample,) = draw_pictures(tmp_path / "data", 1)
    sample = replace(sample, path=sample.path.with_suffix(".bmp"))
    Image.new("RGB", (12, 10), "blue").save(sample.path)
    os.utime(sample.path, ns=(1, 1))
    first = plan_for(vendor, cache, ask([sample]))
    Image.new("RGB", (12, 10), "red").save(sample.path)
    os.utime(sample.path, ns=(1, 1))
    assert plan_for(vendor, cache, ask([sample])).image_keys != first.image_keys


def test_a_new_time_stamp_alone_costs_nothing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 2)
    buy(plan_for(vendor, cache, ask(samples)), client, cache)
    os.utime(samples[0].path, ns=(1, 1))
    assert plan_for(vendor, cache, ask(samples)).units == 0


def test_a_missing_or_broken_file_is_named(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    gone = Sample(tmp_path / "gone.png", "photo", 0)
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        plan_for(vendor, cache, ask([gone]))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        plan_for(vendor, cache, ask([Sample(broken, "photo", 0)]))


# Caps


@pytest.fixture
def plan(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> QueryPlan:
    """Two texts and 148 images: 150 queries for 14,820 micro-EUR."""
    return plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 148)), ["a", "b"])


@pytest.mark.parametrize(
    ("caps", "says"),
    [
        (
            {"max_queries": 100},
            r"150 new .*\(0\.01482 EUR\), but purchase.max_queries allows 100: raise it to 150",
        ),
        ({"max_cost_micro": 14_819}, r"purchase.max_cost allows 0\.014819 EUR: raise it to 0\.01482 EUR"),
        ({"remaining_units": 100}, "the account has 100 left: ask the vendor for a top-up of 50.*purchase.partial"),
    ],
)
def test_a_cap_that_cannot_hold_the_plan_says_what_to_do(plan: QueryPlan, caps: dict[str, int], says: str) -> None:
    with pytest.raises(BudgetExhausted, match=says):
        plan.check_caps(Limits(**caps))


def test_caps_that_hold_are_silent(plan: QueryPlan) -> None:
    plan.check_caps(Limits(max_queries=150, max_cost_micro=14_820, remaining_units=150))


@pytest.mark.parametrize(
    ("caps", "units"),
    [
        ({}, 150),
        ({"max_queries": 7}, 7),
        ({"remaining_units": 0}, 0),
        ({"remaining_units": -5}, 0),
        ({"max_queries": 90, "remaining_units": 80, "max_cost_micro": 1_019}, 11),
        ({"max_cost_micro": 19}, 1),
    ],
)
def test_the_affordable_part_is_the_beginning(plan: QueryPlan, caps: dict[str, int], units: int) -> None:
    affordable = plan.affordable(Limits(**caps))
    assert affordable.missing == plan.missing[:units]
    assert affordable.image_keys == plan.image_keys


def test_batches_hold_one_modality_and_fit_the_vendors_limits(plan: QueryPlan) -> None:
    batches = cut_batches(plan.missing, replace(plan.teacher, max_items=10))
    assert [len(batch) for batch in batches] == [2, *[10] * 14, 8]
    assert tuple(item for batch in batches for item in batch) == plan.missing
    tight = replace(plan.teacher, max_request_bytes=5_000)  # an image of 8x8 takes 1,224 bytes at most
    assert max(len(batch) for batch in cut_batches(plan.missing, tight)[1:]) == 4


# The vendor changes


def test_another_model_behind_the_address_mixes_with_nothing_and_is_announced(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    queries = ask(draw_pictures(tmp_path / "data", 3))
    first = plan_for(vendor, cache, queries)
    buy(first, client, cache)
    vendor.weights_sha = "6" * 64
    notices: list[str] = []
    teacher = meet_vendor(client, cache, notify=notices.append)
    assert "now serves another model" in notices[0]
    assert "the 3 vectors bought before do not fit" in notices[0]
    second = make_plan(queries, [], teacher, cache)
    assert second.units == 3
    assert not set(first.image_keys) & set(second.image_keys)
    notices.clear()
    meet_vendor(client, cache, notify=notices.append)
    assert not notices


def test_a_new_price_is_announced(vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache) -> None:
    notices: list[str] = []
    meet_vendor(client, cache, notify=notices.append)
    assert not notices
    vendor.prices["image"] = (3, 250)
    meet_vendor(client, cache, notify=notices.append)
    assert notices == ["the price of one image query is now 0.00025 EUR, before 0.0001 EUR"]


def test_a_finished_job_can_be_planned_without_the_vendor(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    queries = ask(draw_pictures(tmp_path / "data", 3))
    assert cache.vendors.teacher(client.url, None) is None
    buy(plan_for(vendor, cache, queries), client, cache)
    before = len(vendor.seen)
    teacher = cache.vendors.teacher(client.url, None)
    assert teacher is not None
    assert buy(make_plan(queries, [], teacher, cache), client, cache).billed_units == 0
    assert len(vendor.seen) == before


# Keys

FIELDS = {
    "ledger_id": "ledger",
    "modality": "text",
    "model_id": "m",
    "weights_sha": "w",
    "precision": "fp32",
    "preprocessing_id": "p",
    "truncate": False,
    "content_sha": "c",
}


@given(
    name=st.sampled_from([name for name in FIELDS if name not in ("modality", "truncate")]),
    value=st.text(st.characters(codec="utf-8")),
)
def test_every_field_of_the_identity_decides_the_key(name: str, value: str) -> None:
    plain = EmbeddingIdentity(**FIELDS)  # type: ignore[arg-type]
    other = replace(plain, **{name: value})
    assert (plain.cache_key() == other.cache_key()) is (plain == other)
    assert (plain.item_key(b"s" * 32) == other.item_key(b"s" * 32)) is (plain == other)


def test_keys_follow_the_contract_and_item_keys_the_secret(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    with EmbeddingCache(tmp_path / "other.db") as other, connect(vendor) as client:
        teacher = client.model()
        mine, theirs = (make_plan([], [TextQuery("a cat")], teacher, one).missing[0] for one in (cache, other))
    assert mine.cache_key == theirs.cache_key
    assert mine.item_key != theirs.item_key


def test_a_new_view_is_rendered_once_to_be_planned_and_sent(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 6), views=2))
    monkeypatch.setattr("vl2v_client.buying.buyer.render_view", lambda *_: pytest.fail("rendered again"))
    assert buy(plan, client, cache).billed_units == 12


def test_what_finds_no_room_in_the_spool_is_rendered_again(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = plan_for(vendor, cache, []).teacher.image_size
    monkeypatch.setattr(planned_queries.RenderSpool.__init__, "__defaults__", (3 * 3 * size**2,))
    rendered: list[object] = []
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 6), views=2))
    monkeypatch.setattr(
        "vl2v_client.buying.buyer.render_view", lambda *facts: rendered.append(facts) or render_view(*facts)
    )
    assert buy(plan, client, cache).billed_units == 12
    assert len(rendered) == 9


def test_a_file_that_changed_after_it_was_spooled_is_not_sent(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 2)
    plan = plan_for(vendor, cache, ask(samples))
    Image.new("RGB", (40, 40), "red").save(samples[0].path)
    with pytest.raises(DataError, match="has changed since it was planned"):
        buy(plan, client, cache)


def test_a_file_that_vanishes_while_it_is_planned_or_spooled_is_named(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = draw_pictures(tmp_path / "data", 2)
    plan = plan_for(vendor, cache, ask(samples))
    samples[0].path.unlink()
    with pytest.raises(DataError, match=f"{samples[0].path} cannot be read"):
        buy(plan, client, cache)
    more = draw_pictures(tmp_path / "more", 3)[2:]  # the others hold known content
    keys = planned_queries.view_keys

    def then_remove(*arguments: Any, **options: Any) -> list[bytes]:
        found = keys(*arguments, **options)
        more[0].path.unlink()
        return found

    monkeypatch.setattr(planned_queries, "view_keys", then_remove)
    with pytest.raises(DataError, match=f"{more[0].path} cannot be read"):
        plan_for(vendor, cache, ask(more))
