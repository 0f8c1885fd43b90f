"""The checks of a ledger: its keys; each account's chain, money, totals, items, and the staff's acts."""

import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, EntryKind, LedgerEntry, follows, items_hash
from vl2v_contract.records import PublicKey, key_id_of, successor_message, verify
from vl2v_vendor.domain.accounts import Budget
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import LedgerHead

MAX_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not add up; `account_id` is None where it concerns the vendor as a whole."""

    account_id: str | None
    seq: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class LoggedAct:
    """An act of the staff that makes an entry, as the log has it."""

    name: str
    kind: EntryKind
    units: int


@dataclass(frozen=True, slots=True)
class AccountBooks:
    """What is kept about an account beside its entries.

    Attributes:
        last_created_at: Time of the last entry, as it is kept with the head.
        key_budgets: Budgets of the API keys that have one, by key id.
        acts: Acts of the staff that made its entries, by request id.
        refunded_seqs: Charges that its refunds name.
    """

    account_id: str
    currency: str
    head: LedgerHead
    last_created_at: int
    api_key_ids: frozenset[str]
    key_budgets: Mapping[str, Budget]
    acts: Mapping[str, LoggedAct]
    refunded_seqs: frozenset[int]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A charged item as stored, and the hash of its vector if that is still kept."""

    seq: int
    item: ChargedItem
    kept_sha: str | None


@dataclass(slots=True)
class VerificationReport:
    """What was checked and what was found; at most `MAX_PROBLEMS` are spelled out.

    Attributes:
        unsigned_before: Accounts of an older version: the first entry that is signed, which covers those before it;
            None while none is.
    """

    accounts: int = 0
    entries: int = 0
    items: int = 0
    unsigned_before: dict[str, int | None] = field(default_factory=dict)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return self.problem_count == 0

    def add(self, account_id: str | None, seq: int | None, code: str, detail: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(account_id, seq, code, detail))


def check_keys(keys: Sequence[PublicKey], report: VerificationReport) -> None:
    """Check that each key has its own name, and but the first is signed by the one before, which then retired."""
    for key in keys:
        try:
            name = key_id_of(b64decode(key.public_key, validate=True))
        except ValueError as error:
            report.add(None, None, "key_chain_break", f"the public key of {key.key_id} is none: {error}")
            return
        if name != key.key_id:
            report.add(None, None, "key_chain_break", f"the public key of {key.key_id} is that of {name}")
    if keys and (keys[0].predecessor_id, keys[0].predecessor_signature) != (None, None):
        report.add(None, None, "key_chain_break", f"the first signing key {keys[0].key_id} names a predecessor")
    if keys and keys[-1].retired_at is not None:
        report.add(None, None, "key_chain_break", f"signing key {keys[-1].key_id} has retired, and none replaced it")
    for before, key in pairwise(keys):
        message, signature = successor_message(key.public_key), key.predecessor_signature or ""
        if key.predecessor_id != before.key_id or not verify(before.public_key, message, signature):
            report.add(None, None, "key_chain_break", f"signing key {key.key_id} is not signed by the one before")
        if before.retired_at != key.created_at:
            report.add(None, None, "key_chain_break", f"signing key {before.key_id} did not retire when replaced")


@dataclass(eq=False, slots=True)
class AccountCheck:
    """One pass over an account's entries, with the running totals that the next entry must agree with."""

    books: AccountBooks
    ledger_id: str
    signing_key_ids: frozenset[str]
    prices: Mapping[int, Price]
    report: VerificationReport
    items: Iterator[StoredItem]
    _next_item: StoredItem | None = None
    _seq: int = 0
    _hash: str = GENESIS_HASH
    _created_at: int = 0
    _used_units: int = 0
    _limit_units: int = 0
    _key_units: Counter[str] = field(default_factory=Counter)
    _refunded: dict[int, tuple[object, ...]] = field(default_factory=dict)
    _left_units: Counter[int] = field(default_factory=Counter)
    _acts: dict[str, LoggedAct] = field(default_factory=dict)

    def run(self, entries: Iterable[tuple[LedgerEntry, str]]) -> None:
        """Read entries and items to their ends and report what does not add up."""
        self.report.accounts += 1
        self._next_item, self._acts = next(self.items, None), dict(self.books.acts)
        for entry, stored_hash in entries:
            self.report.entries += 1
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
        try:
            sealed: str | None = entry.hash()
        except ValueError:
            sealed = None  # a field holds what no entry can hold
        if sealed != stored_hash:
            self._add(entry.seq, "hash_mismatch", "the entry does not have the hash that is stored with it")
        if entry.created_at < self._created_at:
            self._add(entry.seq, "time_went_back", "created_at is before that of the entry before")
        self._seq, self._hash, self._created_at = entry.seq, stored_hash, entry.created_at

    def _check_names(self, entry: LedgerEntry) -> None:
        if entry.ledger_id != self.ledger_id:
            self._add(entry.seq, "foreign_entry", f"an entry of ledger {entry.ledger_id}")
        if entry.signing_key_id not in self.signing_key_ids:
            self._add(entry.seq, "unknown_signing_key", f"{entry.signing_key_id} was never published")
        if entry.api_key_id is not None and entry.api_key_id not in self.books.api_key_ids:
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
        if entry.currency != self.books.currency:
            self._add(entry.seq, "currency_mismatch", f"{entry.currency} in an account in {self.books.currency}")
        if entry.price_id is None:
            if entry.unit_price_micro:
                self._add(entry.seq, "price_mismatch", "a unit price without a price")
            return
        price = self.prices.get(entry.price_id)
        charged = (entry.model_id, entry.modality, entry.unit_price_micro, entry.currency)
        if price is None or charged != (price.model_id, price.modality, price.unit_price_micro, price.currency):
            self._add(entry.seq, "price_mismatch", f"price {entry.price_id} does not say what the entry charges")

    def _check_totals(self, entry: LedgerEntry) -> None:
        if entry.kind == "restored" and entry.units:
            self._add(entry.seq, "units_mismatch", f"{entry.units} units in a restored entry")
        if entry.kind != "restored" and entry.units <= 0:
            self._add(entry.seq, "units_mismatch", f"{entry.units} units")
        spent = {"charge": entry.units, "refund": -entry.units}.get(entry.kind, 0)
        self._used_units += spent
        if entry.api_key_id is not None:
            self._key_units[entry.api_key_id] += spent
        if entry.kind == "topup":
            self._limit_units += entry.units
        elif entry.kind == "refund":
            self._check_refund(entry)
        elif entry.seq in self.books.refunded_seqs and entry.kind == "charge":
            self._refunded[entry.seq], self._left_units[entry.seq] = _product_of(entry), entry.units
        if (entry.used_units, entry.limit_units) != (self._used_units, self._limit_units):
            self._add(entry.seq, "running_total", "used_units or limit_units is not the sum of the entries so far")
        if not 0 <= entry.used_units <= entry.limit_units:
            self._add(entry.seq, "budget_exceeded", f"{entry.used_units} used of {entry.limit_units}")

    def _check_refund(self, entry: LedgerEntry) -> None:
        charge, seq = self._refunded.get(entry.ref_seq or 0), entry.ref_seq or 0
        self._left_units[seq] -= entry.units
        if charge is None:
            self._add(entry.seq, "refund_mismatch", f"entry {entry.ref_seq} is no charge before it")
        elif self._left_units[seq] < 0:
            self._add(entry.seq, "refund_mismatch", f"more than entry {seq} charged")
        if charge not in (None, _product_of(entry)):
            self._add(entry.seq, "refund_mismatch", f"not of the key, model and price of entry {seq}")

    def _check_items(self, entry: LedgerEntry) -> None:
        stored = self._take_items(entry.seq)
        self.report.items += len(stored)
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
            self._next_item = next(self.items, None)
        for stored in taken:
            if stored.seq != seq:
                self._add(stored.seq, "orphan_item", f"item {stored.item.item_key} belongs to no entry")
        return [stored for stored in taken if stored.seq == seq]

    def _check_books(self) -> None:
        head = self.books.head
        if (head.seq, head.entry_hash) != (self._seq, self._hash):
            self._add(None, "head_mismatch", f"the chain ends at entry {self._seq}, the head says {head.seq}")
        if self._seq and self.books.last_created_at != self._created_at:
            self._add(None, "head_mismatch", "the head does not have the time of the last entry")
        if (head.used_units, head.limit_units) != (self._used_units, self._limit_units):
            self._add(None, "budget_mismatch", "the account's budget is not the sum of its entries")
        if not 0 <= head.used_units <= head.limit_units:
            self._add(None, "budget_exceeded", f"{head.used_units} used of {head.limit_units}")
        for key_id, budget in self.books.key_budgets.items():
            if budget.used_units != self._key_units[key_id]:
                self._add(None, "budget_mismatch", f"the budget of key {key_id} is not the sum of its entries")
            if not 0 <= budget.used_units <= budget.limit_units:
                self._add(None, "budget_exceeded", f"key {key_id}: {budget.used_units} used of {budget.limit_units}")
        for act in self._acts.values():
            self._add(None, "missing_entry", f"the staff's log has a {act.name} of {act.units} units; no entry does")

    def _add(self, seq: int | None, code: str, detail: str) -> None:
        self.report.add(self.books.account_id, seq, code, detail)


_PRODUCT = (
    "api_key_id endpoint modality model_id weights_sha precision preprocessing_id price_id unit_price_micro currency"
)
_product_of: Callable[[LedgerEntry], tuple[object, ...]] = attrgetter(*_PRODUCT.split())
"""What a refund repeats of its charge."""
