"""A lying vendor, in front of the real one: every lie about the bill is named, none passes, none breaks the audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import httpx
import pytest

from support.adversary.lie_making import LAST, OURS, REFUND, THEIRS, TOP_UP, sealed
from support.adversary.lies import AMOUNTS, BREAK, HISTORIES, REWRITTEN, SEALS, UNEXPLAINED, UNVERIFIED, Told
from support.adversary.lying_vendor import Books
from support.ledger.honest_books import HonestBooks, Party, pin, write_books
from support.vendor.vendor_in_process import open_vendor
from vl2v_client.audit.audit_report import CHAIN_DIFFERENCES, EXIT_DIFFERENCES, EXIT_OTHER_SOFTWARE, AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorError
from vl2v_contract.chain import LedgerEntry

Scale = Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]
LIES = [*HISTORIES, *AMOUNTS, *SEALS]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[HonestBooks]:
    home = tmp_path_factory.mktemp("books")
    settings, ours = write_books(home, migrated_sqlite)
    with open_vendor(settings) as vendor:
        yield HonestBooks(vendor, ours.read_truth(vendor), ours, pin(ours, vendor, home / "pinned.db"))


def audit(party: Party, transport: httpx.BaseTransport, folder: Path, *, only_ours: bool = True) -> AuditReport:
    """An audit with a copy of the party's cache, whose API key nothing else uses."""
    copy = folder / "client.db"
    shutil.copy(party.cache, copy)
    with EmbeddingCache(copy) as cache, party.connect(transport) as client:
        before = cache.vendors.audited_head(*_account(cache))
        report = audit_bill(client, cache, only_ours=only_ours)
        after = cache.vendors.audited_head(*_account(cache))
        assert before == after or not CHAIN_DIFFERENCES & report.findings.counts.keys()
    return report


def found(report: AuditReport) -> set[str]:
    return {str(kind) for kind in report.findings.counts}


@pytest.mark.parametrize("lie", [lie for lie in LIES if not lie.only_pinned], ids=lambda lie: lie.name)
def test_a_lie_is_named(books: HonestBooks, lie: Told, tmp_path: Path) -> None:
    report = audit(books.fresh, books.told(lie.tell), tmp_path)
    assert found(report) == lie.expected
    assert report.exit_code == EXIT_DIFFERENCES


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lie_after_an_audit_is_named(books: HonestBooks, lie: Told, tmp_path: Path) -> None:
    report = audit(books.pinned, books.told(lie.tell), tmp_path)
    assert found(report) - {REWRITTEN} == lie.expected - {REWRITTEN}
    assert found(report) >= lie.expected
    assert report.exit_code == EXIT_DIFFERENCES


@pytest.mark.parametrize("lie", [lie for lie in LIES if UNEXPLAINED in lie.expected], ids=lambda lie: lie.name)
def test_an_invented_charge_is_never_clean_where_other_software_buys_too(
    books: HonestBooks, lie: Told, tmp_path: Path
) -> None:
    """It may be other software's, as far as anybody here can tell: it is counted, summed up, and no success."""
    report = audit(books.pinned, books.told(lie.tell), tmp_path, only_ours=False)
    others, told = report.other_software, lie.expected - {REWRITTEN}
    assert found(report) - {REWRITTEN} == told - ({UNEXPLAINED} if others.items else set())
    assert report.exit_code == (EXIT_DIFFERENCES if found(report) else EXIT_OTHER_SOFTWARE)
    assert not others.items or (others.requests, others.amount_micro > 0) == (1, True)


@pytest.mark.parametrize("name", UNVERIFIED)
def test_a_lie_that_leaves_nothing_to_verify_says_why(books: HonestBooks, name: str, tmp_path: Path) -> None:
    lie, reason = UNVERIFIED[name]
    for party in (books.fresh, books.pinned):
        with pytest.raises(VendorError, match=reason):
            audit(party, books.told(lie), tmp_path)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["raw", "sealed"])
@pytest.mark.parametrize("name", [field.name for field in fields(LedgerEntry) if field.name != "v"])
def test_no_field_of_an_entry_can_be_changed(
    books: HonestBooks, name: str, is_sealed: bool, scale: Scale, tmp_path: Path
) -> None:
    def change(shown: Books, index: int) -> None:
        changed = shown.entry(index)
        changed[name] = OTHER_VALUES.get(name) or other_value(changed[name])

    if is_sealed and name in ("items_hash", "prev_hash"):
        return  # sealing sets them right again
    for index in scale((OURS, LAST), (OURS, THEIRS, REFUND, TOP_UP, LAST)):
        raw = partial(change, index=index)
        lie = sealed(raw, totals=False, numbers=False) if is_sealed else raw
        report = audit(books.pinned, books.told(lie), tmp_path)
        assert found(report) >= ({REWRITTEN} if is_sealed else {BREAK})


def test_the_truth_is_clean(books: HonestBooks, tmp_path: Path) -> None:
    for party in (books.fresh, books.pinned):
        report = audit(party, books.told(lambda shown: shown.reseal()), tmp_path)
        assert found(report) == set()
        assert report.matched_items == 25


OTHER_VALUES = {"kind": "restored", "modality": "image", "ref_seq": 1, "price_id": 7}


def other_value(value: object) -> object:
    """Another value of the same type; a text for null."""
    if isinstance(value, int):
        return value + 1
    return f"{str(value)[:-1]}{'1' if str(value)[-1] == '0' else '0'}"


def _account(cache: EmbeddingCache) -> tuple[str, str]:
    ledger_id = cache.stats().vendors[0].ledger_id
    return ledger_id, next(iter(cache.records.account_ids(ledger_id)))
