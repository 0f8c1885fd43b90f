"""The report of an audit: totals, and every difference under a name of its own."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from vl2v_client.core.html_tables import html_table
from vl2v_client.core.progress import format_micro
from vl2v_contract.chain import GENESIS_HASH

EXAMPLES_KEPT = 20
EXIT_CLEAN, EXIT_DIFFERENCES, EXIT_UNVERIFIED, EXIT_OTHER_SOFTWARE = 0, 1, 2, 3


class Difference(StrEnum):
    """The ways in which the vendor's books and ours can disagree."""

    LOST_RESPONSE = "lost_response"
    UNEXPLAINED_CHARGE = "unexplained_charge"
    MISSING_CHARGE = "missing_charge"
    AMOUNT_MISMATCH = "amount_mismatch"
    PRICE_MISMATCH = "price_mismatch"
    DUPLICATE_ITEM = "duplicate_item"
    GAP_IN_SEQ = "gap_in_seq"
    CHAIN_BREAK = "chain_break"
    BAD_SIGNATURE = "bad_signature"
    UNSIGNED_ENTRY = "unsigned_entry"
    HISTORY_REWRITTEN = "history_rewritten"
    LEDGER_RESTORED = "ledger_restored"


REMEDIES = {
    Difference.LOST_RESPONSE: "charged, but the answer never arrived: let the audit recover it, free, or by "
    "the same purchase again if the vendor no longer keeps it",
    Difference.UNEXPLAINED_CHARGE: "charged for items that this cache never named, in a request of its own, under no "
    "API key, or under one that nothing else uses: dispute the charge",
    Difference.MISSING_CHARGE: "we hold a signed receipt for an entry that the statement leaves out: show the receipt",
    Difference.AMOUNT_MISMATCH: "units, money or totals do not add up: dispute the entry",
    Difference.PRICE_MISMATCH: "charged at a price that was never agreed to: dispute the entry",
    Difference.DUPLICATE_ITEM: "one item was charged twice: ask for a refund",
    Difference.GAP_IN_SEQ: "entries are missing, repeated or out of order: ask for the whole ledger",
    Difference.CHAIN_BREAK: "an entry does not hash to what it says or does not follow the one before: it was altered",
    Difference.BAD_SIGNATURE: "not signed by a key that descends from the one trusted first: do not trust it",
    Difference.UNSIGNED_ENTRY: "made by other means than the vendor's software, which signs what it makes: ask the "
    "vendor what made it, and for its act in the staff's log",
    Difference.HISTORY_REWRITTEN: "the chain is not the one audited or receipted before: show the receipts",
    Difference.LEDGER_RESTORED: "the vendor lost these entries and says so under its signature: you keep the vectors, "
    "and they are not billed any more",
}

CHAIN_DIFFERENCES = frozenset(
    {
        Difference.GAP_IN_SEQ,
        Difference.CHAIN_BREAK,
        Difference.BAD_SIGNATURE,
        Difference.HISTORY_REWRITTEN,
        Difference.AMOUNT_MISMATCH,
        Difference.MISSING_CHARGE,
    }
)
"""Differences after which the end of the chain is not pinned."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: where, and what exactly."""

    difference: Difference
    detail: str
    seq: int | None = None
    item_key: str | None = None


@dataclass(slots=True)
class KeyTotals:
    """Items, units and money of one part of the statement."""

    items: int = 0
    units: int = 0
    amount_micro: int = 0

    def add(self, items: int, amount_micro: int) -> None:
        """Add items of one unit each, and the money that they cost."""
        self.items += items
        self.units += items
        self.amount_micro += amount_micro


@dataclass(slots=True)
class OtherCharges(KeyTotals):
    """What the statement charges for items that this cache never named, under one API key or several.

    Attributes:
        requests: Entries of the statement that have such items.
        first_seq: Number of the first; 0 without any.
        last_seq: Number of the last.
    """

    requests: int = 0
    first_seq: int = 0
    last_seq: int = 0

    def take(self, seq: int, items: int, unit_price_micro: int) -> None:
        """Add items of an entry that comes after those taken before."""
        self.add(items, items * unit_price_micro)
        self.requests += 1
        self.first_seq, self.last_seq = self.first_seq or seq, seq

    def merge(self, other: "OtherCharges") -> None:
        """Add the charges of another key."""
        self.add(other.items, other.amount_micro)
        self.requests += other.requests
        self.first_seq = min(filter(None, (self.first_seq, other.first_seq)), default=0)
        self.last_seq = max(self.last_seq, other.last_seq)


@dataclass(slots=True)
class Findings:
    """All differences counted, the first few of each kind kept in full."""

    counts: Counter[Difference] = field(default_factory=Counter)
    examples: list[Finding] = field(default_factory=list)

    def add(self, difference: Difference, detail: str, seq: int | None = None, item_key: str | None = None) -> None:
        """Count a difference, and keep it in full if it is among the first of its kind."""
        if self.counts[difference] < EXAMPLES_KEPT:
            self.examples.append(Finding(difference, detail, seq, item_key))
        self.counts[difference] += 1

    def add_if(self, difference: Difference, seq: int | None, is_so: dict[str, bool]) -> None:
        """Add each detail that is so."""
        for detail, found in is_so.items():
            if found:
                self.add(difference, detail, seq)


_RESULTS = {
    EXIT_CLEAN: "clean: both books agree",
    EXIT_DIFFERENCES: "differences",
    EXIT_OTHER_SOFTWARE: "no differences, but charges that this cache cannot explain",
}


@dataclass(slots=True, kw_only=True)
class AuditReport:
    """A whole audit; the walk and the reconciliation fill it in.

    Attributes:
        head_seq: Number of the last entry verified.
        head_hash: Its hash, recomputed.
        limit_units: Topped up.
        entries: Ledger entries verified.
        matched_items: Charged items that this cache paid for and holds, by the same entry.
        units: Charged less refunded, over the whole account, whatever the running totals say.
        amount_micro: Price of them, in micro-units.
        currency: Currency of the first entry.
        other_keys: Items that this cache never named, by API key; in the end, of the account's other keys.
        other_software: Those of our own keys: nothing shows who bought them, and nothing here contradicts them.
        accepted: Those of our own keys that the user has accepted before, as bought by software of the account.
        lost_by_restore: Paid by entries that the vendor lost and said so; not billed any more, so in no other total.
        recovered_items: Lost responses fetched free before the final pass.
        unsigned_before: Entries before this one are older than signatures of entries, and covered by its own; None for
            a ledger that has always had them.
        unchecked_signatures: Entries whose signatures the vendor does not show, as older versions do not.
        is_end_signed: Whether the vendor's signature of an entry covers the last one, as far as it shows them.
    """

    ledger_id: str
    account_id: str
    head_seq: int = 0
    head_hash: str = GENESIS_HASH
    limit_units: int = 0
    entries: int = 0
    matched_items: int = 0
    units: int = 0
    amount_micro: int = 0
    currency: str = ""
    other_keys: defaultdict[str, OtherCharges] = field(default_factory=lambda: defaultdict(OtherCharges))
    other_software: OtherCharges = field(default_factory=OtherCharges)
    accepted: OtherCharges = field(default_factory=OtherCharges)
    lost_by_restore: KeyTotals = field(default_factory=KeyTotals)
    findings: Findings = field(default_factory=Findings)
    recovered_items: int = 0
    unsigned_before: int | None = None
    unchecked_signatures: int = 0
    is_end_signed: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether both books agree, and every charge to our own keys is explained."""
        return not self.findings.counts and not self.other_software.items

    @property
    def exit_code(self) -> int:
        """0 clean, 1 differences, 3 charges of other software alone; an audit that could not be made raises (2)."""
        if self.findings.counts:
            return EXIT_DIFFERENCES
        return EXIT_OTHER_SOFTWARE if self.other_software.items else EXIT_CLEAN

    def accept_others(self) -> None:
        """Count what other software bought as accepted."""
        self.accepted.merge(self.other_software)
        self.other_software = OtherCharges()

    def facts(self) -> list[tuple[str, str]]:
        """Return the totals for people."""

        def spent(one: KeyTotals | AuditReport) -> str:
            return f"{one.units:,} queries, {format_micro(one.amount_micro, self.currency)}"

        rows = [
            ("entries verified", f"{self.entries:,}, up to number {self.head_seq:,}"),
            ("billed", spent(self)),
            ("matched items", f"{self.matched_items:,}"),
        ]
        rows += [("other key", f"{key}: {spent(one)}") for key, one in sorted(self.other_keys.items())]
        for label, one in (("other software", self.other_software), ("accepted before", self.accepted)):
            if one.items:
                many = f"{one.requests:,} entries from {one.first_seq:,} to {one.last_seq:,}"
                rows.append((label, f"{spent(one)}, in {many if one.requests > 1 else f'entry {one.first_seq:,}'}"))
        if self.lost_by_restore.units:
            rows.append(("lost by vendor", f"{spent(self.lost_by_restore)}: kept here, not billed any more"))
        if self.unsigned_before is not None:
            rows.append(("unsigned", f"entries before {self.unsigned_before:,}, made by a version that signed none"))
        if self.unchecked_signatures:
            rows.append(("not shown", f"signatures of {self.unchecked_signatures:,} entries: an older vendor"))
        if self.recovered_items:
            rows.append(("recovered", f"{self.recovered_items:,} paid answers fetched, free"))
        return rows

    def _repr_html_(self) -> str:
        differences = [(str(kind), f"{count:,}: {REMEDIES[kind]}") for kind, count in self.findings.counts.items()]
        rows = [*self.facts(), ("result", _RESULTS[self.exit_code]), *differences]
        return html_table(f"Audit of {self.account_id}", rows)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; every difference class is listed, found or not."""
        return {
            "ledger_id": self.ledger_id,
            "account_id": self.account_id,
            "head": {"seq": self.head_seq, "entry_hash": self.head_hash},
            "entries": self.entries,
            "units": self.units,
            "limit_units": self.limit_units,
            "amount_micro": self.amount_micro,
            "currency": self.currency,
            "matched": self.matched_items,
            "other_key": [
                {"api_key_id": key, "items": one.items, "units": one.units, "amount_micro": one.amount_micro}
                for key, one in sorted(self.other_keys.items())
            ],
            "other_software": {**asdict(self.other_software), "accepted": asdict(self.accepted)},
            "lost_by_restore": asdict(self.lost_by_restore),
            "differences": {str(kind): self.findings.counts.get(kind, 0) for kind in Difference},
            "examples": [
                {"class": str(one.difference), "seq": one.seq, "item_key": one.item_key, "detail": one.detail}
                for one in self.findings.examples
            ],
            "recovered": self.recovered_items,
            "signatures": {"unsigned_before": self.unsigned_before, "not_shown": self.unchecked_signatures},
            "clean": self.is_clean,
            "exit_code": self.exit_code,
        }
