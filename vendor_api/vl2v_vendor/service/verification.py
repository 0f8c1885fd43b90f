"""Checking the whole ledger against itself: every chain recomputed, every total summed up again.

The checks are the invariants I1 to I6: budgets within their limits and equal to the sums of entries; amounts from
units and prices; one charge per item; sequence numbers without gaps; hashes that recompute, link and end at the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry, items_hash
from vl2v_vendor.domain.accounts import Budget
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import LedgerHead

MAX_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not add up."""

    account_id: str
    seq: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AccountBooks:
    """What is kept about an account beside its entries."""

    account_id: str
    currency: str
    head: LedgerHead
    key_budgets: Mapping[str, Budget]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A charged item as stored, and the hash of its vector if that is still kept."""

    seq: int
    index: int
    item: ChargedItem
    kept_sha: str | None


class LedgerScan(Protocol):
    """The whole ledger, read once, in one snapshot."""

    def accounts(self) -> Iterable[AccountBooks]:
        """Every account."""

    def prices(self) -> Mapping[int, Price]:
        """Every version of every price, by id."""

    def entries(self, account_id: str) -> Iterable[tuple[LedgerEntry, str]]:
        """The account's entries with their stored hashes, by seq."""

    def items(self, account_id: str) -> Iterable[StoredItem]:
        """The account's items by seq and index."""


@dataclass(slots=True)
class VerificationReport:
    """What was checked and what was found; at most `MAX_PROBLEMS` are spelled out."""

    accounts: int = 0
    entries: int = 0
    items: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return self.problem_count == 0

    def add(self, account_id: str, seq: int | None, code: str, detail: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(account_id, seq, code, detail))


def verify_ledger(scan: LedgerScan) -> VerificationReport:
    """Check every account; memory does not grow with the number of entries."""
    report = VerificationReport()
    prices = scan.prices()
    for books in scan.accounts():
        report.accounts += 1
        _AccountCheck(books, prices, report).run(scan.entries(books.account_id), scan.items(books.account_id))
    return report


class _AccountCheck:
    """One pass over an account's entries, with the running totals that the next entry must agree with."""

    def __init__(self, books: AccountBooks, prices: Mapping[int, Price], report: VerificationReport) -> None:
        self._books = books
        self._prices = prices
        self._report = report
        self._seq = 0
        self._hash = GENESIS_HASH
        self._created_at = 0
        self._used_units = 0
        self._limit_units = 0
        self._key_units: Counter[str] = Counter()
        self._refundable: dict[int, int] = {}

    def run(self, entries: Iterable[tuple[LedgerEntry, str]], items: Iterable[StoredItem]) -> None:
        stream = _ItemStream(items)
        for entry, stored_hash in entries:
            self._report.entries += 1
            self._check_chain(entry, stored_hash)
            self._check_money(entry)
            self._check_totals(entry)
            self._check_items(entry, stream)
        for stored in stream.rest():
            self._add(stored.seq, "orphan_item", f"item {stored.item.item_key} belongs to no entry")
        self._check_books()

    def _check_chain(self, entry: LedgerEntry, stored_hash: str) -> None:
        if entry.seq != self._seq + 1:
            self._add(entry.seq, "gap_in_seq", f"entry {entry.seq} follows entry {self._seq}")
        if entry.prev_hash != self._hash:
            self._add(entry.seq, "chain_break", "prev_hash is not the hash of the entry before")
        if _hash_of(entry) != stored_hash:
            self._add(entry.seq, "hash_mismatch", "the entry does not have the hash that is stored with it")
        if entry.created_at < self._created_at:
            self._add(entry.seq, "time_went_back", "created_at is before that of the entry before")
        self._seq, self._hash, self._created_at = entry.seq, stored_hash, entry.created_at

    def _check_money(self, entry: LedgerEntry) -> None:
        if entry.amount_micro != entry.units * entry.unit_price_micro:
            self._add(entry.seq, "amount_mismatch", "amount_micro is not units times unit_price_micro")
        if entry.currency != self._books.currency:
            self._add(entry.seq, "currency_mismatch", f"{entry.currency} in an account in {self._books.currency}")
        if entry.price_id is None:
            if entry.unit_price_micro:
                self._add(entry.seq, "price_mismatch", "a unit price without a price")
            return
        price = self._prices.get(entry.price_id)
        charged = (entry.model_id, entry.modality, entry.unit_price_micro, entry.currency)
        if price is None or charged != (price.model_id, price.modality, price.unit_price_micro, price.currency):
            self._add(entry.seq, "price_mismatch", f"price {entry.price_id} does not say what the entry charges")

    def _check_totals(self, entry: LedgerEntry) -> None:
        if entry.units <= 0:
            self._add(entry.seq, "units_mismatch", f"{entry.units} units")
        if entry.kind == "topup":
            self._limit_units += entry.units
        elif entry.kind == "charge":
            self._move(entry, entry.units)
            self._refundable[entry.seq] = entry.units
        else:
            self._move(entry, -entry.units)
            left_units = self._refundable.get(entry.ref_seq or 0, 0) - entry.units
            self._refundable[entry.ref_seq or 0] = left_units
            if left_units < 0:
                self._add(entry.seq, "refund_mismatch", f"more than entry {entry.ref_seq} charged")
        if (entry.used_units, entry.limit_units) != (self._used_units, self._limit_units):
            self._add(entry.seq, "running_total", "used_units or limit_units is not the sum of the entries so far")
        if not 0 <= entry.used_units <= entry.limit_units:
            self._add(entry.seq, "budget_exceeded", f"{entry.used_units} used of {entry.limit_units}")

    def _check_items(self, entry: LedgerEntry, stream: _ItemStream) -> None:
        skipped, stored = stream.take(entry.seq)
        for item in skipped:
            self._add(item.seq, "orphan_item", f"item {item.item.item_key} belongs to no entry")
        self._report.items += len(stored)
        if entry.kind != "charge":
            if stored or entry.items_hash is not None:
                self._add(entry.seq, "items_mismatch", f"a {entry.kind} with items")
            return
        items = [item.item for item in stored]
        if sum(item.units for item in items) != entry.units:
            self._add(entry.seq, "units_mismatch", "units is not the sum of the items' units")
        if items_hash(items) != entry.items_hash:
            self._add(entry.seq, "items_mismatch", "the items do not have the entry's items_hash")
        for kept in stored:
            if kept.kept_sha not in (None, kept.item.result_sha):
                self._add(entry.seq, "result_mismatch", f"the vector kept for {kept.item.item_key} is not the one sold")

    def _check_books(self) -> None:
        head = self._books.head
        if (head.seq, head.entry_hash) != (self._seq, self._hash):
            self._add(None, "head_mismatch", f"the chain ends at entry {self._seq}, the head says {head.seq}")
        if (head.used_units, head.limit_units) != (self._used_units, self._limit_units):
            self._add(None, "budget_mismatch", "the account's budget is not the sum of its entries")
        if not 0 <= head.used_units <= head.limit_units:
            self._add(None, "budget_exceeded", f"{head.used_units} used of {head.limit_units}")
        for key_id, budget in self._books.key_budgets.items():
            if budget.used_units != self._key_units[key_id]:
                self._add(None, "budget_mismatch", f"the budget of key {key_id} is not the sum of its entries")

    def _move(self, entry: LedgerEntry, units: int) -> None:
        self._used_units += units
        if entry.api_key_id is not None:
            self._key_units[entry.api_key_id] += units

    def _add(self, seq: int | None, code: str, detail: str) -> None:
        self._report.add(self._books.account_id, seq, code, detail)


class _ItemStream:
    """Items in seq order, taken entry by entry."""

    def __init__(self, items: Iterable[StoredItem]) -> None:
        self._items = iter(items)
        self._next = next(self._items, None)

    def take(self, seq: int) -> tuple[list[StoredItem], list[StoredItem]]:
        """The items before `seq` that no entry took, and those of `seq`."""
        skipped: list[StoredItem] = []
        taken: list[StoredItem] = []
        while self._next is not None and self._next.seq <= seq:
            (taken if self._next.seq == seq else skipped).append(self._next)
            self._next = next(self._items, None)
        return skipped, taken

    def rest(self) -> Iterator[StoredItem]:
        """The items after the last entry."""
        while self._next is not None:
            yield self._next
            self._next = next(self._items, None)


def _hash_of(entry: LedgerEntry) -> str | None:
    """The entry's hash; None if a field holds what no entry can hold."""
    try:
        return entry.hash()
    except ValueError:
        return None
