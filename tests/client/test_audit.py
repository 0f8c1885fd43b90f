"""The audit names every way of lying that the statement has, and raises no alarm over an honest one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_ledger import Body, Posted, rechained
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, ClientError, VendorChanged, VendorError, VendorUnavailable
from vl2v_contract.chain import ChargedItem
from vl2v_contract.records import SigningKey

History = Callable[[list[Posted]], list[Posted]]


@pytest.fixture
def books(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> FakeVendor:
    """A top-up, three charges of five items, a refund, and everything received."""
    vendor.max_items = 5
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 15))), client, cache, workers=1)
    vendor.refund(2, units=2)
    return vendor


def audit(vendor: FakeVendor, cache: EmbeddingCache, *, recover: bool = False) -> AuditReport:
    with connect(vendor) as client:
        return audit_bill(client, cache, recover=recover, settle_seconds=0)


def found(report: AuditReport) -> set[str]:
    return {str(kind) for kind in report.findings.counts}


def edited(index: int, **changes: object) -> History:
    """A history with one entry changed and everything after it made to fit."""

    def lie(history: list[Posted]) -> list[Posted]:
        row = history[index]
        history[index] = Posted(replace(row.entry, **changes), row.items)  # type: ignore[arg-type]
        return rechained(history)

    return lie


def test_an_honest_statement_is_clean_and_its_end_is_pinned(books: FakeVendor, cache: EmbeddingCache) -> None:
    report = audit(books, cache)
    assert (report.is_clean, report.exit_code) == (True, 0)
    assert (report.entries, report.matched_items, report.units, report.amount_micro) == (5, 15, 13, 1300)
    pinned = cache.vendors.audited_head("fake-ledger", "acct_client")
    assert pinned is not None
    assert (pinned.seq, pinned.entry_hash) == (5, books.posted[-1].hash)
    assert audit(books, cache).to_json()["differences"] == dict.fromkeys(report.to_json()["differences"], 0)


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        pytest.param(lambda h: h[:2] + h[3:], {"gap_in_seq", "chain_break", "missing_charge"}, id="dropped"),
        pytest.param(
            lambda h: rechained(h[:2] + h[3:]), {"missing_charge", "history_rewritten"}, id="dropped-rechained"
        ),
        pytest.param(lambda h: h[:3], {"missing_charge"}, id="tail-cut-off"),
        pytest.param(lambda h: [h[0], h[2], h[1], *h[3:]], {"gap_in_seq", "chain_break"}, id="reordered"),
        pytest.param(lambda h: [*h[:3], h[2], *h[3:]], {"gap_in_seq", "duplicate_item"}, id="entry-shown-twice"),
        pytest.param(lambda h: rechained([*h, h[2]]), {"duplicate_item"}, id="charged-twice"),
        pytest.param(edited(2, units=50, amount_micro=5000), {"amount_mismatch", "history_rewritten"}, id="inflated"),
        pytest.param(edited(2, amount_micro=900), {"amount_mismatch", "history_rewritten"}, id="wrong-amount"),
        pytest.param(
            edited(2, price_id=9, unit_price_micro=900, amount_micro=4500),
            {"price_mismatch", "amount_mismatch", "history_rewritten"},
            id="price-swapped",
        ),
        pytest.param(edited(2, unit_price_micro=900, amount_micro=4500), {"price_mismatch"}, id="price-of-two-values"),
        pytest.param(edited(2, created_at=1), {"chain_break", "history_rewritten"}, id="clock-turned-back"),
        pytest.param(edited(2, account_id="acct_other"), {"chain_break"}, id="of-another-account"),
        pytest.param(edited(0, note="free"), {"history_rewritten"}, id="history-rewritten"),
        pytest.param(edited(2, signing_key_id="0" * 16), {"bad_signature"}, id="signed-by-a-stranger"),
    ],
)
def test_a_lying_history_is_named(books: FakeVendor, cache: EmbeddingCache, lie: History, expected: set[str]) -> None:
    books.history = lie
    report = audit(books, cache)
    assert expected <= found(report)
    assert report.exit_code == 1
    assert cache.vendors.audited_head("fake-ledger", "acct_client") is None or not report.findings.counts


def test_a_history_that_no_receipt_covers_is_still_held_to_the_pinned_head(
    vendor: FakeVendor, cache: EmbeddingCache
) -> None:
    vendor.post("topup", units=5)
    assert audit(vendor, cache).is_clean
    vendor.history = edited(1, units=9)
    assert found(audit(vendor, cache)) == {"history_rewritten"}
    vendor.history = lambda history: history[:1]
    assert found(audit(vendor, cache)) == {"history_rewritten"}


def inflate_an_item(history: list[Posted]) -> list[Posted]:
    row = history[2]
    history[2] = Posted(replace(row.entry, units=6, amount_micro=600), (replace(row.items[0], units=2), *row.items[1:]))
    return rechained(history)


def test_an_item_of_two_units_is_an_amount_mismatch(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.history = inflate_an_item
    assert "amount_mismatch" in found(audit(books, cache))


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("signed_head", "signature"), "AAAA", {"bad_signature"}),
        (("signed_head", "head", "used_units"), 12, {"bad_signature", "amount_mismatch"}),
        (("signed_head", "head", "seq"), 9, {"bad_signature", "gap_in_seq"}),
        (("signed_head", "head", "account_id"), "acct_other", {"bad_signature", "chain_break"}),
        (("entries", 2, "entry", "units"), 6, {"chain_break", "amount_mismatch"}),
        (("entries", 2, "entry_hash"), "0" * 64, {"chain_break", "history_rewritten"}),
        (("entries", 2, "items", 0, "result_sha"), "0" * 64, {"chain_break"}),
        (("entries", 2, "items", 0, "item_key"), "0" * 64, {"chain_break", "unexplained_charge"}),
    ],
)
def test_a_statement_altered_after_it_was_made_is_named(
    books: FakeVendor, cache: EmbeddingCache, place: tuple[str | int, ...], value: object, expected: set[str]
) -> None:
    def lie(path: str, body: Body) -> Body:
        if path.endswith("/statement"):
            spot = body
            for part in place[:-1]:
                spot = spot[part]  # type: ignore[index]
            spot[place[-1]] = value  # type: ignore[index]
        return body

    books.lie = lie
    assert expected <= found(audit(books, cache))


def test_a_charge_that_names_no_key_is_unexplained(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.post("charge", 1, [ChargedItem("a" * 64, "b" * 64, 1)], "image", api_key_id=None)
    assert found(audit(books, cache)) == {"unexplained_charge"}


def test_what_another_key_of_the_account_bought_is_totalled_and_no_difference(
    books: FakeVendor, cache: EmbeddingCache
) -> None:
    books.post("charge", 1, [ChargedItem("a" * 64, "b" * 64, 1)], "image", api_key_id="key_colleague")
    report = audit(books, cache)
    assert report.is_clean
    assert report.to_json()["other_key"] == [
        {"api_key_id": "key_colleague", "items": 1, "units": 1, "amount_micro": 100}
    ]


def test_a_lost_answer_is_named_and_recovered_free(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 4)))

    def drop(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadError("cut", request=request)
        return response

    vendor.after = drop
    with connect(vendor) as client, pytest.raises(VendorUnavailable):
        buy(plan, client, cache)
    vendor.after = lambda _request, response: response
    report = audit(vendor, cache)
    assert dict(report.findings.counts) == {"lost_response": 4}
    report = audit(vendor, cache, recover=True)
    assert (report.exit_code, report.recovered_items, report.matched_items) == (0, 4, 4)
    assert cache.missing(plan.image_keys) == []
    assert vendor.billed_units == 4


def test_a_vendor_with_another_first_key_cannot_be_verified(books: FakeVendor, cache: EmbeddingCache) -> None:
    audit(books, cache)
    books.keys = [SigningKey.from_seed(b"\7" * 32)]
    with pytest.raises(VendorChanged, match="first signing key"):
        audit(books, cache)


def test_a_successor_key_needs_its_predecessors_signature(
    books: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    books.rotate_key()
    plan = plan_for(books, cache, ask(draw_pictures(tmp_path / "more", 18)))
    buy(plan, client, cache)
    assert audit(books, cache).is_clean

    def forge(path: str, body: Body) -> Body:
        if path.endswith("/keys"):
            body["keys"][1]["predecessor_signature"] = body["keys"][0]["public_key"]
        return body

    books.lie = forge
    with pytest.raises(VendorChanged, match="predecessor"):
        audit(books, cache)


def test_a_statement_that_turns_in_circles_ends(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.lie = lambda path, body: body | {"next_after_seq": 0} if path.endswith("/statement") else body
    with pytest.raises(VendorError, match="does not go on"):
        audit(books, cache)


def test_a_page_of_more_entries_than_asked_for_is_refused(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.lie = lambda path, body: body | {"entries": body["entries"] * 501} if path.endswith("/statement") else body
    with pytest.raises(VendorError, match="a page of"):
        audit(books, cache)


@pytest.mark.parametrize("seed", range(12))
def test_clean_histories_with_crashes_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    vendor = FakeVendor(budget=dice.randrange(5, 40), max_items=dice.randrange(1, 8))
    samples = draw_pictures(tmp_path / "data", 30)

    def drop(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method == "POST" and dice.random() < 0.6:
            raise httpx.ReadError("cut", request=request)
        return response

    with EmbeddingCache(tmp_path / "client.db") as cache:
        for _ in range(6):
            vendor.after = drop
            plan = plan_for(vendor, cache, ask(dice.sample(samples, dice.randrange(1, 30))), ["a cat"])
            try:
                with connect(vendor) as client:
                    buy(plan, client, cache, allow_partial=True, workers=1)
            except (BudgetExhausted, VendorUnavailable):
                vendor.post("topup", units=dice.randrange(1, 20))
            if dice.random() < 0.3:
                vendor.rotate_key()
            vendor.after = lambda _request, response: response
            assert found(audit(vendor, cache)) <= {"lost_response"}
        report = audit(vendor, cache, recover=True)
        assert report.is_clean
        assert report.matched_items == vendor.billed_units == cache.stats().vendors[0].paid_items


@pytest.mark.parametrize("name", ["seq", "units", "created_at"])
def test_numbers_beyond_all_bounds_cannot_be_verified(books: FakeVendor, cache: EmbeddingCache, name: str) -> None:
    def lie(path: str, body: Body) -> Body:
        if path.endswith("/statement"):
            body["entries"][1]["entry"][name] = 2**80
        return body

    books.lie = lie
    with pytest.raises(VendorError, match="a number that cannot be"):
        audit(books, cache)


def test_every_error_of_an_audit_is_a_client_error(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.lie = lambda path, body: {"entries": "none"} if path.endswith("/statement") else body
    with pytest.raises(ClientError, match="not a VL2V vendor"):
        audit(books, cache)
