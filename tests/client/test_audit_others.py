"""What other software bought with our API key is counted by itself; what contradicts our books stays a difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.client_shell import invoke
from support.client.fake_ledger import Posted, rechained
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.audit.audit_report import AuditReport, KeyTotals
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_contract.chain import ChargedItem


@pytest.fixture
def books(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> FakeVendor:
    """A top-up and a charge of three items, received."""
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 3))), client, cache)
    return vendor


def charge(vendor: FakeVendor, *letters: str, **changes: Any) -> None:
    """Charge our key for items that no cache of ours has named."""
    items = [ChargedItem(letter * 64, "f" * 64, 1) for letter in letters]
    vendor.post("charge", len(items), items, "image", **changes)


def audit(vendor: FakeVendor, cache: EmbeddingCache, **options: bool) -> AuditReport:
    with connect(vendor) as client:
        return audit_bill(client, cache, settle_seconds=0, **options)


def test_what_other_software_bought_is_counted_and_is_no_dispute(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a", "b")
    charge(books, "c")
    report = audit(books, cache)
    others = report.other_software
    assert dict(report.findings.counts) == {}
    assert (others.items, others.units, others.amount_micro, others.requests) == (3, 3, 300, 2)
    assert (others.first_seq, others.last_seq) == (3, 4)
    assert (report.is_clean, report.exit_code, report.matched_items) == (False, 3, 3)
    assert audit(books, cache).other_software == others, "told again until it is settled"


def test_a_notebook_shows_them_too(books: FakeVendor, cache: EmbeddingCache) -> None:
    assert "other software" not in audit(books, cache)._repr_html_()
    charge(books, "a")
    shown = audit(books, cache)._repr_html_()
    assert "1 queries, 0.0001 EUR" in shown
    assert "cannot explain" in shown


def test_where_nothing_else_has_the_key_they_are_unexplained(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a", "b")
    report = audit(books, cache, only_ours=True)
    assert (dict(report.findings.counts), report.exit_code) == ({"unexplained_charge": 2}, 1)
    assert report.other_software.items == 0
    assert {(one.seq, one.item_key) for one in report.findings.examples} == {(3, "a" * 64), (3, "b" * 64)}


def test_what_the_user_accepts_is_told_no_more_and_what_is_new_is(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a", "b")
    accepted = audit(books, cache, accept_others=True)
    assert (accepted.exit_code, accepted.accepted.units, accepted.other_software.units) == (0, 2, 0)
    assert audit(books, cache).exit_code == 0
    charge(books, "c")
    report = audit(books, cache)
    assert (report.exit_code, report.accepted.units, report.other_software.units) == (3, 2, 1)
    assert audit(books, cache, only_ours=True).findings.counts == {"unexplained_charge": 3}


def test_nothing_is_accepted_on_a_chain_that_does_not_hold(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a")

    books.history = lambda history: [history[0], history[2]]
    assert audit(books, cache, accept_others=True).exit_code == 1
    books.history = lambda history: history
    assert audit(books, cache).exit_code == 3


def test_an_item_too_many_in_a_request_of_ours_is_a_dispute(books: FakeVendor, cache: EmbeddingCache) -> None:
    def invent(history: list[Posted]) -> list[Posted]:
        row = history[1]
        entry = replace(row.entry, units=4, amount_micro=400)
        history[1] = Posted(entry, (*row.items, ChargedItem("a" * 64, "f" * 64, 1)))
        return rechained(history)

    books.history = invent
    report = audit(books, cache)
    assert report.findings.counts["unexplained_charge"] == 1
    assert (report.other_software.units, report.exit_code) == (0, 1)


def test_a_price_that_our_books_have_otherwise_is_a_dispute(books: FakeVendor, cache: EmbeddingCache) -> None:
    """The statement alone does not show it: nothing else there has the price of texts."""
    item = ChargedItem("a" * 64, "f" * 64, 1)
    books.post("charge", 1, [item], "text", unit_price_micro=900, amount_micro=900)
    report = audit(books, cache)
    assert (dict(report.findings.counts), report.other_software.units) == ({"price_mismatch": 1}, 1)


def test_an_item_that_is_charged_twice_is_a_dispute_whoever_bought_it(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a")
    charge(books, "a")
    assert dict(audit(books, cache).findings.counts) == {"duplicate_item": 1}


@pytest.fixture
def environment(books: FakeVendor, cache: EmbeddingCache) -> Iterator[dict[str, str]]:
    with served(books) as url:
        yield {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(cache.path), "COLUMNS": "80"}


def test_the_command_says_how_much_and_how_to_settle_it(books: FakeVendor, environment: dict[str, str]) -> None:
    charge(books, "a", "b")
    shown = invoke(["audit"], environment)
    words = " ".join(shown.stdout.split())
    assert shown.exit_code == 3
    assert "2 queries, 0.0002 EUR, in entry 3" in words
    assert "bought by other software" in words
    for way in ("cache import", "--accept-others", "dispute", "a limit"):
        assert way in words
    report = json.loads(invoke(["audit", "--json"], environment).stdout)
    assert (report["exit_code"], report["clean"], report["other_software"]["units"]) == (3, False, 2)
    assert set(report["differences"].values()) == {0}
    strict = json.loads(invoke(["audit", "--json", "--only-ours"], environment).stdout)
    assert (strict["exit_code"], strict["differences"]["unexplained_charge"]) == (1, 2)
    assert invoke(["audit", "--accept-others"], environment).exit_code == 0
    shown = invoke(["audit"], environment)
    assert (shown.exit_code, "accepted before" in shown.stdout) == (0, True)
    assert invoke(["audit", "--only-ours", "--accept-others"], environment).exit_code == 2


def test_totals_of_other_keys_are_as_before(books: FakeVendor, cache: EmbeddingCache) -> None:
    charge(books, "a", api_key_id="key_colleague")
    report = audit(books, cache, accept_others=True)
    assert (report.exit_code, report.other_software.units) == (0, 0)
    assert report.to_json()["other_key"] == [
        {"api_key_id": "key_colleague", "items": 1, "units": 1, "amount_micro": 100}
    ]
    assert audit(books, cache).to_json()["other_key"] == report.to_json()["other_key"]
    assert isinstance(report.other_keys["key_colleague"], KeyTotals)
