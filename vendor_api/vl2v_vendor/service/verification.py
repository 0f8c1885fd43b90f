"""Verification of the ledger: keys, then each account's chain, money, totals, items, and the staff's acts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from vl2v_contract.chain import GENESIS_HASH, LedgerEntry, follows, items_hash
from vl2v_contract.records import PublicKey
from vl2v_contract.signatures import successor_message, verify
from vl2v_vendor.service.ledger_books import AccountBooks, LedgerScan, StoredItem, VendorBooks, VerificationReport


def verify_ledger(scan: LedgerScan) -> VerificationReport:
    """Check every account; memory does not grow with the number of charges and items."""
    report = VerificationReport()
    keys = scan.published_keys()
    _check_keys(keys, report)
    vendor = VendorBooks(scan.ledger_id(), frozenset(key.key_id for key in keys), scan.prices())
    for books in scan.accounts():
        report.accounts += 1
        AccountCheck(books, vendor, report, scan.items(books.account_id)).run(scan.entries(books.account_id))
    return report


def _check_keys(keys: Sequence[PublicKey], report: VerificationReport) -> None:
    """Each key but the first is signed by the one before, which retired when it came."""
    if keys and keys[0].predecessor_id is not None:
        report.add(None, None, "key_chain_break", f"the first signing key {keys[0].key_id} names a predecessor")
    for before, key in pairwise(keys):
        message, signature = successor_message(key.public_key), key.predecessor_signature or ""
        if key.predecessor_id != before.key_id or not verify(before.public_key, message, signature):
            report.add(None, None, "key_chain_break", f"signing key {key.key_id} is not signed by the one before")
        if before.retired_at != key.created_at:
            report.add(None, None, "key_chain_break", f"signing key {before.key_id} did not retire when replaced")


class AccountCheck:
    """One pass over an account's entries, with the running totals that the next entry must agree with."""

    def __init__(
        self, books: AccountBooks, vendor: VendorBooks, report: VerificationReport, items: Iterable[StoredItem]
    ) -> None:
        self._books = books
        self._vendor = vendor
        self._report = report
        self._items = iter(items)
        self._next_item = next(self._items, None)
        self._seq = 0
        self._hash = GENESIS_HASH
        self._created_at = 0
        self._used_units = 0
        self._limit_units = 0
        self._key_units: Counter[str] = Counter()
        self._refunded: dict[int, tuple[object, ...]] = {}
        self._left_units: Counter[int] = Counter()
        self._acts = dict(books.acts)

    def run(self, entries: Iterable[tuple[LedgerEntry, str]]) -> None:
        """Read entries and items to their ends and report what does not add up."""
        for entry, stored_hash in entries:
            self._report.entries += 1
            self._check_chain(entry, stored_hash)
            self._check_names(entry)
            self._check_money(entry)
            self._check_totals(entry)
            self._check_items(entry)
        self._take_items(sys.maxsize)
        self._check_books()

    def _check_chain(self, entry: LedgerEntry, stored_hash: str) -> None:
        if not follows(self._seq, entry):
            self._add(entry.seq, "gap_in_seq", f"entry {entry.seq} follows entry {self._seq}")
        if entry.prev_hash != self._hash:
            self._add(entry.seq, "chain_break", "prev_hash is not the hash of the entry before")
        if _hash_of(entry) != stored_hash:
            self._add(entry.seq, "hash_mismatch", "the entry does not have the hash that is stored with it")
        if entry.created_at < self._created_at:
            self._add(entry.seq, "time_went_back", "created_at is before that of the entry before")
        self._seq, self._hash, self._created_at = entry.seq, stored_hash, entry.created_at

    def _check_names(self, entry: LedgerEntry) -> None:
        if entry.ledger_id != self._vendor.ledger_id:
            self._add(entry.seq, "foreign_entry", f"an entry of ledger {entry.ledger_id}")
        if entry.signing_key_id not in self._vendor.signing_key_ids:
            self._add(entry.seq, "unknown_signing_key", f"{entry.signing_key_id} was never published")
        if entry.api_key_id is not None and entry.api_key_id not in self._books.api_key_ids:
            self._add(entry.seq, "unknown_api_key", f"{entry.api_key_id} is no key of this account")
        act = self._acts.pop(entry.request_id, None)
        if entry.kind == "charge":
            if act is not None:
                self._add(entry.seq, "act_mismatch", f"a charge under the request id of the act {act.name}")
        elif act is None:
            self._add(entry.seq, "unlogged_act", f"a {entry.kind} that is not in the staff's log")
        elif (act.kind, act.units) != (entry.kind, entry.units):
            self._add(entry.seq, "act_mismatch", f"the staff's log has a {act.kind} of {act.units} units")

    def _check_money(self, entry: LedgerEntry) -> None:
        if entry.amount_micro != entry.units * entry.unit_price_micro:
            self._add(entry.seq, "amount_mismatch", "amount_micro is not units times unit_price_micro")
        if entry.currency != self._books.currency:
            self._add(entry.seq, "currency_mismatch", f"{entry.currency} in an account in {self._books.currency}")
        if entry.price_id is None:
            if entry.unit_price_micro:
                self._add(entry.seq, "price_mismatch", "a unit price without a price")
            return
        price = self._vendor.prices.get(entry.price_id)
        charged = (entry.model_id, entry.modality, entry.unit_price_micro, entry.currency)
        if price is None or charged != (price.model_id, price.modality, price.unit_price_micro, price.currency):
            self._add(entry.seq, "price_mismatch", f"price {entry.price_id} does not say what the entry charges")

    def _check_totals(self, entry: LedgerEntry) -> None:
        if entry.kind == "restored":
            if entry.units:
                self._add(entry.seq, "units_mismatch", f"{entry.units} units in a restored entry")
        elif entry.units <= 0:
            self._add(entry.seq, "units_mismatch", f"{entry.units} units")
        if entry.kind == "topup":
            self._limit_units += entry.units
        elif entry.kind == "charge":
            self._move(entry, entry.units)
            if entry.seq in self._books.refunded_seqs:
                self._refunded[entry.seq], self._left_units[entry.seq] = _product_of(entry), entry.units
        elif entry.kind == "refund":
            self._move(entry, -entry.units)
            self._check_refund(entry)
        if (entry.used_units, entry.limit_units) != (self._used_units, self._limit_units):
            self._add(entry.seq, "running_total", "used_units or limit_units is not the sum of the entries so far")
        if not 0 <= entry.used_units <= entry.limit_units:
            self._add(entry.seq, "budget_exceeded", f"{entry.used_units} used of {entry.limit_units}")

    def _check_refund(self, entry: LedgerEntry) -> None:
        ref_seq = entry.ref_seq or 0
        charge = self._refunded.get(ref_seq)
        self._left_units[ref_seq] -= entry.units
        if charge is None:
            self._add(entry.seq, "refund_mismatch", f"entry {entry.ref_seq} is no charge before it")
            return
        if self._left_units[ref_seq] < 0:
            self._add(entry.seq, "refund_mismatch", f"more than entry {ref_seq} charged")
        if charge != _product_of(entry):
            self._add(entry.seq, "refund_mismatch", f"not of the key, model and price of entry {ref_seq}")

    def _check_items(self, entry: LedgerEntry) -> None:
        stored = self._take_items(entry.seq)
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

    def _take_items(self, seq: int) -> list[StoredItem]:
        """Read the items up to an entry; return the entry's own, and report those of no entry."""
        taken: list[StoredItem] = []
        while self._next_item is not None and self._next_item.seq <= seq:
            taken.append(self._next_item)
            self._next_item = next(self._items, None)
        for stored in taken:
            if stored.seq != seq:
                self._add(stored.seq, "orphan_item", f"item {stored.item.item_key} belongs to no entry")
        return [stored for stored in taken if stored.seq == seq]

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
            if not 0 <= budget.used_units <= budget.limit_units:
                self._add(None, "budget_exceeded", f"key {key_id}: {budget.used_units} used of {budget.limit_units}")
        for act in self._acts.values():
            self._add(None, "missing_entry", f"the staff's log has a {act.name} of {act.units} units; no entry does")

    def _move(self, entry: LedgerEntry, units: int) -> None:
        self._used_units += units
        if entry.api_key_id is not None:
            self._key_units[entry.api_key_id] += units

    def _add(self, seq: int | None, code: str, detail: str) -> None:
        self._report.add(self._books.account_id, seq, code, detail)


_product_of: Callable[[LedgerEntry], tuple[object, ...]] = attrgetter(
    "api_key_id", "endpoint", "modality", "model_id", "weights_sha", "precision", "preprocessing_id", "price_id",
    "unit_price_micro", "currency",
)  # fmt: skip
"""What a refund repeats of its charge."""


def _hash_of(entry: LedgerEntry) -> str | None:
    """Return the entry's hash; None if a field holds what no entry can hold."""
    try:
        return entry.hash()
    except ValueError:
        return None
