"""What an audit found: every difference under a name of its own, the totals, and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

EXAMPLES_KEPT = 20
EXIT_CLEAN, EXIT_DIFFERENCES, EXIT_UNVERIFIED = 0, 1, 2


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
    HISTORY_REWRITTEN = "history_rewritten"
    LEDGER_RESTORED = "ledger_restored"


REMEDIES = {
    Difference.LOST_RESPONSE: "charged, but the answer never arrived: let the audit recover it, free, or by "
    "the same purchase again if the vendor no longer keeps it",
    Difference.UNEXPLAINED_CHARGE: "charged to this API key for items that this cache never named: give every cache a "
    "key of its own; if it has one, dispute the charge",
    Difference.MISSING_CHARGE: "we hold a signed receipt for an entry that the statement leaves out: show the receipt",
    Difference.AMOUNT_MISMATCH: "units, money or totals do not add up: dispute the entry",
    Difference.PRICE_MISMATCH: "charged at a price that was never agreed to: dispute the entry",
    Difference.DUPLICATE_ITEM: "one item was charged twice: ask for a refund",
    Difference.GAP_IN_SEQ: "entries are missing, repeated or out of order: ask for the whole ledger",
    Difference.CHAIN_BREAK: "an entry does not hash to what it says or does not follow the one before: it was altered",
    Difference.BAD_SIGNATURE: "not signed by a key that descends from the one trusted first: do not trust it",
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
class Restore:
    """Numbers that the vendor lost or skipped when it went back to a backup, said so under its signature."""

    first_seq: int
    last_seq: int

    def __contains__(self, seq: int) -> bool:
        return self.first_seq <= seq <= self.last_seq


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


@dataclass(slots=True)
class Findings:
    """All differences counted, the first few of each kind kept in full."""

    counts: Counter[Difference] = field(default_factory=Counter)
    examples: list[Finding] = field(default_factory=list)

    def add(self, difference: Difference, detail: str, *, seq: int | None = None, item_key: str | None = None) -> None:
        """Count a difference, and keep it in full if it is among the first of its kind."""
        if self.counts[difference] < EXAMPLES_KEPT:
            self.examples.append(Finding(difference, detail, seq, item_key))
        self.counts[difference] += 1


@dataclass(slots=True, kw_only=True)
class AuditReport:
    """A whole audit.

    Attributes:
        entries: Ledger entries verified.
        matched_items: Charged items that this cache paid for and holds.
        units: Charged less refunded, over the whole account.
        amount_micro: Price of them, in micro-units.
        other_keys: Totals of other keys, by API key id.
        lost_by_restore: Paid by entries that the vendor lost and said so; not billed any more, so in no other total.
        recovered_items: Lost responses fetched free before the final pass.
    """

    ledger_id: str
    account_id: str
    head_seq: int
    head_hash: str
    limit_units: int
    entries: int = 0
    matched_items: int = 0
    units: int = 0
    amount_micro: int = 0
    currency: str = ""
    other_keys: dict[str, KeyTotals] = field(default_factory=dict)
    lost_by_restore: KeyTotals = field(default_factory=KeyTotals)
    findings: Findings = field(default_factory=Findings)
    recovered_items: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether both books agree."""
        return not self.findings.counts

    @property
    def exit_code(self) -> int:
        """0 clean, 1 differences; an audit that could not be made raises instead (2)."""
        return EXIT_CLEAN if self.is_clean else EXIT_DIFFERENCES

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
                {"api_key_id": key, "items": total.items, "units": total.units, "amount_micro": total.amount_micro}
                for key, total in sorted(self.other_keys.items())
            ],
            "lost_by_restore": asdict(self.lost_by_restore),
            "differences": {str(kind): self.findings.counts.get(kind, 0) for kind in Difference},
            "examples": [
                {"class": str(one.difference), "seq": one.seq, "item_key": one.item_key, "detail": one.detail}
                for one in self.findings.examples
            ],
            "recovered": self.recovered_items,
            "clean": self.is_clean,
            "exit_code": self.exit_code,
        }
