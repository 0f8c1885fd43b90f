"""The audit checks the signature that the vendor made with each entry, and names entries that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_ledger import Body, Posted
from support.client.fake_vendor import FakeVendor
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorError


@pytest.fixture
def books(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> FakeVendor:
    """Entries: 1 top-up, 2 to 4 charges, 5 top-up, 6 charge."""
    vendor.max_items = 5
    asked = ask(draw_pictures(tmp_path / "data", 20))
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, asked[:15]), client, cache, workers=1)
        vendor.post("topup", units=5)
        buy(plan_for(vendor, cache, asked), client, cache, workers=1)
    return vendor


def audit(vendor: FakeVendor, cache: EmbeddingCache) -> AuditReport:
    with connect(vendor) as client:
        return audit_bill(client, cache, settle_seconds=0)


def found(report: AuditReport) -> list[tuple[str, int | None]]:
    return [(str(one.difference), one.seq) for one in report.findings.examples]


def pinned(cache: EmbeddingCache) -> int | None:
    head = cache.vendors.audited_head("fake-ledger", "acct_client")
    return None if head is None else head.seq


def test_a_ledger_that_is_signed_throughout_is_clean(books: FakeVendor, cache: EmbeddingCache) -> None:
    report = audit(books, cache)
    assert report.is_clean
    assert report.to_json()["signatures"] == {"unsigned_before": None, "not_shown": 0}


def test_a_vendor_that_shows_no_signatures_is_audited_and_said_to(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.shows_signatures = False
    report = audit(books, cache)
    assert report.is_clean
    assert report.to_json()["signatures"] == {"unsigned_before": None, "not_shown": 6}
    assert ("not shown", "signatures of 6 entries: an older vendor") in report.facts()
    assert pinned(cache) == 6


def test_entries_that_are_older_than_signatures_are_no_difference(books: FakeVendor, cache: EmbeddingCache) -> None:
    books.unsigned = {1, 2, 3}
    report = audit(books, cache)
    assert report.is_clean
    assert report.to_json()["signatures"] == {"unsigned_before": 4, "not_shown": 0}
    assert ("unsigned", "entries before 4, made by a version that signed none") in report.facts()


def test_an_entry_that_the_vendor_made_no_signature_with_is_named_once(
    books: FakeVendor, cache: EmbeddingCache
) -> None:
    books.unsigned = {5}
    report = audit(books, cache)
    assert (found(report), report.exit_code) == ([("unsigned_entry", 5)], 1)
    assert pinned(cache) == 6
    assert audit(books, cache).is_clean


@pytest.mark.parametrize("shows_it", [True, False])
def test_a_forged_top_up_at_the_end_is_named_at_every_audit(
    books: FakeVendor, cache: EmbeddingCache, shows_it: bool
) -> None:
    """Where the vendor signs the head all the same, and where its head ends before it."""
    forged = books.post("topup", units=1000)
    books.unsigned = {forged.entry.seq}
    if shows_it:
        books.lie = lambda path, body: end_at(books, body, 6) if path.endswith("/statement") else body
    for _ in range(2):
        report = audit(books, cache)
        assert ("unsigned_entry", 7) in found(report)
        assert (report.findings.counts["gap_in_seq"] > 0, report.exit_code) == (shows_it, 1)
        assert pinned(cache) is None


def end_at(books: FakeVendor, body: Body, seq: int) -> Body:
    """A statement with the head of an earlier entry."""
    whole = books.posted
    books.posted = whole[:seq]
    body["signed_head"] = books.statement()["signed_head"]
    books.posted = whole
    return body


def test_a_signature_of_another_entry_is_named(books: FakeVendor, cache: EmbeddingCache) -> None:
    def lie(path: str, body: Body) -> Body:
        if path.endswith("/statement"):
            body["signatures"][4] = body["signatures"][3]
        return body

    books.lie = lie
    assert found(audit(books, cache)) == [("bad_signature", 5)]
    assert pinned(cache) is None


def test_what_each_page_shows_counts_for_its_own_entries(
    books: FakeVendor, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v_client.api.client.STATEMENT_PAGE_ENTRIES", 2)
    books.unsigned = {1, 2, 5}
    report = audit(books, cache)
    assert (found(report), report.unsigned_before) == ([("unsigned_entry", 5)], 3)


def test_signatures_that_are_not_of_the_entries_shown_are_refused(books: FakeVendor, cache: EmbeddingCache) -> None:
    def lie(path: str, body: Body) -> Body:
        if path.endswith("/statement"):
            body["signatures"].pop()
        return body

    books.lie = lie
    with pytest.raises(VendorError, match="another number of signatures"):
        audit(books, cache)


def test_entries_made_since_are_left_to_the_next_audit_with_their_signatures(
    books: FakeVendor, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v_client.api.client.STATEMENT_PAGE_ENTRIES", 4)
    asked: list[Posted] = []

    def grow(path: str, body: Body) -> Body:
        if path.endswith("/statement") and not asked:
            asked.append(books.post("topup", units=1))
        return body

    books.lie = grow
    report = audit(books, cache)
    assert (report.is_clean, report.head_seq) == (True, 6)
