"""A vendor that went back to a backup and says so: what it lost is named once, then only totalled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.client.buying_bench import buy, connect, plan_for
from support.client.fake_ledger import Posted
from support.client.fake_vendor import FakeVendor
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_contract.chain import RESTORE_MARGIN

OTHER_HASH = "0" * 64


@pytest.fixture
def books(vendor: FakeVendor, cache: EmbeddingCache) -> FakeVendor:
    """A top-up and three charges of five texts."""
    vendor.max_items = 5
    buy_texts(vendor, cache, "first", 15)
    return vendor


def buy_texts(vendor: FakeVendor, cache: EmbeddingCache, name: str, count: int) -> None:
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, [], [f"{name} {i}" for i in range(count)]), client, cache, workers=1)


def audit(vendor: FakeVendor, cache: EmbeddingCache) -> AuditReport:
    with connect(vendor) as client:
        return audit_bill(client, cache)


def found(report: AuditReport) -> dict[str, int]:
    return {str(kind): count for kind, count in report.findings.counts.items()}


def test_lost_entries_are_named_once_and_totalled_ever_after(books: FakeVendor, cache: EmbeddingCache) -> None:
    assert audit(books, cache).is_clean
    books.lose_entries(2)
    report = audit(books, cache)
    assert found(report) == {"ledger_restored": 3}  # the pin, and two receipts
    assert report.exit_code == 1
    assert (report.lost_by_restore.units, report.lost_by_restore.amount_micro) == (10, 100)
    assert (report.matched_items, report.units) == (5, 5)
    report = audit(books, cache)
    assert report.is_clean
    assert report.to_json()["lost_by_restore"] == {"items": 10, "units": 10, "amount_micro": 100}
    assert report.head_seq == 4 + 1 + RESTORE_MARGIN


def test_purchases_go_on_after_a_restore(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.lose_entries(2)
    buy_texts(books, cache, "later", 5)
    assert found(audit(books, cache)) == {"ledger_restored": 2}
    report = audit(books, cache)
    assert report.is_clean
    assert report.matched_items == 10
    assert cache.stats().vendors[0].paid_items == 20


def test_a_restore_that_lost_nothing_of_ours_is_clean(books: FakeVendor, cache: EmbeddingCache) -> None:
    assert audit(books, cache).is_clean
    books.post("topup", units=5)
    books.lose_entries(4)
    assert audit(books, cache).is_clean


def test_an_entry_signed_just_before_the_loss_is_covered_by_the_margin(
    books: FakeVendor, cache: EmbeddingCache
) -> None:
    """The vendor's own note of what it has signed may lag: the numbers it skips are lost like those it names."""
    books.lose_entries(2, up_to_seq=3)
    assert found(audit(books, cache)) == {"ledger_restored": 2}


def test_two_restores_are_told_apart(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.lose_entries(3)
    assert found(audit(books, cache)) == {"ledger_restored": 1}
    buy_texts(books, cache, "later", 5)
    books.lose_entries(books.posted[-2].entry.seq)
    assert found(audit(books, cache)) == {"ledger_restored": 1}
    report = audit(books, cache)
    assert report.is_clean
    assert report.lost_by_restore.units == 10


def lost_without_a_word(books: FakeVendor) -> None:
    books.posted = books.posted[:2]


def counted_on(books: FakeVendor) -> None:
    """The numbers of the lost entries used again, and the loss told afterwards."""
    books.posted = books.posted[:2]
    books.post("topup", units=5)
    books.lose_entries(3, up_to_seq=4)


def edit_restored(**changes: object) -> Callable[[FakeVendor], None]:
    def lie(books: FakeVendor) -> None:
        books.lose_entries(2)
        row = books.posted[-1]
        books.posted[-1] = Posted(replace(row.entry, **changes), row.items)  # type: ignore[arg-type]

    return lie


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        pytest.param(lost_without_a_word, {"missing_charge", "history_rewritten"}, id="without-a-word"),
        pytest.param(counted_on, {"missing_charge", "history_rewritten", "ledger_restored"}, id="numbers-used-again"),
        pytest.param(edit_restored(ref_seq=3), {"gap_in_seq"}, id="gap-of-another-length"),
        pytest.param(edit_restored(ref_seq=None), {"gap_in_seq"}, id="without-a-reference"),
        pytest.param(edit_restored(kind="topup", units=5), {"gap_in_seq"}, id="as-a-top-up"),
        pytest.param(edit_restored(units=5), {"amount_mismatch"}, id="with-units"),
        pytest.param(edit_restored(limit_units=5), {"amount_mismatch"}, id="with-another-limit"),
        pytest.param(edit_restored(prev_hash=OTHER_HASH), {"chain_break"}, id="on-another-chain"),
    ],
)
def test_a_loss_that_is_not_told_lawfully_stays_a_difference(
    books: FakeVendor, cache: EmbeddingCache, lie: Callable[[FakeVendor], None], expected: set[str]
) -> None:
    assert audit(books, cache).is_clean
    lie(books)
    assert expected <= found(audit(books, cache)).keys()
    assert not audit(books, cache).is_clean


def test_a_refund_of_a_lost_charge_is_no_lawful_refund(
    books: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    lost = books.lose_entries(2)
    assert found(audit(books, cache)) == {"ledger_restored": 2}
    names = ("api_key_id", "endpoint", "modality", "model_id", "weights_sha", "precision", "preprocessing_id")
    terms = {name: getattr(lost[0].entry, name) for name in (*names, "price_id", "unit_price_micro")}
    books.post("refund", 1, amount_micro=10, ref_seq=3, **terms)
    assert found(audit(books, cache)) == {"amount_mismatch": 1}
