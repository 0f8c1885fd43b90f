"""Adding up a statement: units, money, prices, refunds and running totals, entry by entry."""

from __future__ import annotations

from vl2v_client.audit.audit_report import Difference, Findings
from vl2v_client.audit.notes import RefundableCharges
from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import StatementEntry


class AmountCheck:
    """Sums as the entries make them. Each difference is noted; the sums go on from what the vendor says.

    Attributes:
        used_units: Charged less refunded, as running total.
        limit_units: Topped up.
        units: Charged less refunded, whatever the running totals say.
        amount_micro: Price of them, in micro-units.
        currency: Currency of the first entry.

    Args:
        findings: Differences found.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._charges = RefundableCharges()
        self._prices: dict[int, tuple[object, ...]] = {}
        self.used_units = 0
        self.limit_units = 0
        self.units = 0
        self.amount_micro = 0
        self.currency = ""

    def close(self) -> None:
        """Drop what was noted on disk."""
        self._charges.close()

    def take(self, row: StatementEntry) -> None:
        """Check the next entry."""
        entry = row.entry
        self._add_up(entry)
        self._check_units(row)
        self._check_price(entry)
        self._check_running_totals(entry)
        if entry.kind == "charge":
            self._charges.charge(entry.seq, _terms(entry), entry.units)
        elif entry.kind == "refund" and not self._charges.refund(entry.ref_seq or 0, _terms(entry), entry.units):
            why = (
                f"it refunds {entry.units} units, which entry {entry.ref_seq} has not charged to this key at this price"
            )
            self._note(Difference.AMOUNT_MISMATCH, f"{why}, or not any more", entry)

    def _add_up(self, entry: LedgerEntry) -> None:
        sign = {"charge": 1, "refund": -1}.get(entry.kind, 0)
        self.used_units += sign * entry.units
        self.units += sign * entry.units
        self.amount_micro += sign * entry.amount_micro
        self.limit_units += entry.units if entry.kind == "topup" else 0

    def _check_units(self, row: StatementEntry) -> None:
        entry = row.entry
        counted = len(row.items) if entry.kind == "charge" else 0
        if (entry.kind == "charge" and entry.units != counted) or any(item.units != 1 for item in row.items):
            why = f"{counted} items were charged {entry.units} units, not one each"
            self._note(Difference.AMOUNT_MISMATCH, why, entry)
        if len(row.items) != counted:
            self._note(Difference.AMOUNT_MISMATCH, f"a {entry.kind} has no items, this one has {len(row.items)}", entry)
        if (entry.units == 0) != (entry.kind == "restored"):
            self._note(Difference.AMOUNT_MISMATCH, f"a {entry.kind} of {entry.units} units cannot be", entry)
        if entry.amount_micro != entry.units * entry.unit_price_micro:
            self._note(Difference.AMOUNT_MISMATCH, "the amount is not units times unit price", entry)

    def _check_price(self, entry: LedgerEntry) -> None:
        self.currency = self.currency or entry.currency
        if entry.currency != self.currency:
            why = f"the account was billed in {self.currency} before, not in {entry.currency}"
            self._note(Difference.PRICE_MISMATCH, why, entry)
        if (entry.price_id is not None) != (entry.kind in ("charge", "refund")):
            self._note(Difference.PRICE_MISMATCH, f"a {entry.kind} with price {entry.price_id}", entry)
        if entry.price_id is None:
            if entry.unit_price_micro:
                self._note(Difference.PRICE_MISMATCH, "a unit price without a price", entry)
            return
        told = (entry.unit_price_micro, entry.currency, entry.model_id, entry.modality)
        if self._prices.setdefault(entry.price_id, told) != told:
            self._note(Difference.PRICE_MISMATCH, f"price {entry.price_id} has two values", entry)

    def _check_running_totals(self, entry: LedgerEntry) -> None:
        if (entry.used_units, entry.limit_units) != (self.used_units, self.limit_units):
            why = f"used and limit should be {self.used_units} and {self.limit_units}, not "
            self._note(Difference.AMOUNT_MISMATCH, f"{why}{entry.used_units} and {entry.limit_units}", entry)
            self.used_units, self.limit_units = entry.used_units, entry.limit_units
        if entry.used_units > entry.limit_units:
            why = f"{entry.used_units} units are used of a budget of {entry.limit_units}"
            self._note(Difference.AMOUNT_MISMATCH, why, entry)

    def _note(self, difference: Difference, detail: str, entry: LedgerEntry) -> None:
        self._findings.add(difference, detail, seq=entry.seq)


def _terms(entry: LedgerEntry) -> tuple[object, ...]:
    """Return what a refund repeats of its charge."""
    model = (entry.modality, entry.model_id, entry.weights_sha, entry.precision, entry.preprocessing_id)
    return (entry.api_key_id, entry.endpoint, *model, entry.price_id, entry.unit_price_micro, entry.currency)
