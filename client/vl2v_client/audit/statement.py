"""Walking a statement: every entry, every item, every hash and every signature is checked; nothing is sampled.

A verifier that looks at the two ends of a chain can be shown two histories with the same ends, so this one takes no
short cut. It reads up to the end that the first page's head has signed, so that a ledger that grows meanwhile, or a
vendor that never stops, cannot keep it busy for ever.
"""

from __future__ import annotations

from dataclasses import asdict

from vl2v_client.api.keyring import Keyring
from vl2v_client.audit.audit_report import Difference, Findings, Restore
from vl2v_client.audit.notes import RefundableCharges
from vl2v_client.cache.records import AuditedHead
from vl2v_contract.chain import GENESIS_HASH, LedgerEntry, follows, items_hash
from vl2v_contract.records import Statement, StatementEntry, Summary

SUCCESSION_GRACE_MICRO = 3_600_000_000
"""How long a key may still sign after its retirement: the time to restart every replica with the new key."""


class ChainWalk:
    """The chain as far as it was read. Each difference is noted; the walk goes on from what the vendor showed.

    Attributes:
        end_seq: The last entry that this audit covers.
        seq: Number of the last entry taken.
        entry_hash: Recomputed, of the last entry taken.
        amounts: The sums so far.
        restores: Numbers that the vendor lost and said so under its signature.

    Args:
        account: What the vendor's summary said, just before the statement.
        keyring: The vendor's trusted keys.
        pinned: The end of the chain at the last audit; it must still be on it.
        first: The statement's first page, whose head says how far to read.
        findings: Differences found.
    """

    def __init__(
        self, account: Summary, keyring: Keyring, pinned: AuditedHead | None, first: Statement, findings: Findings
    ) -> None:
        self._account = account
        self._keyring = keyring
        self._retired_at = {key.key_id: key.retired_at for key in keyring.keys}
        self._pinned = pinned
        self._head = first.signed_head.head
        self._findings = findings
        self._created_at = 0
        self._has_met_pin = pinned is None
        self._has_met_summary = account.head_seq == 0
        self.end_seq = self._head.seq
        self.amounts = AmountCheck(findings)
        self.seq = 0
        self.entry_hash = GENESIS_HASH
        self.restores: list[Restore] = []

    def take(self, page: Statement) -> list[StatementEntry]:
        """Check the next page; returns the rows that this audit covers."""
        self._check_head(page)
        # Entries that were made since the first page are left to the next audit.
        rows = [row for row in page.entries if not self.end_seq < row.entry.seq <= page.signed_head.head.seq]
        for row in rows:
            self._take_row(row)
        return rows

    def finish(self) -> None:
        """Check that the signed head is the end of the chain that was shown, and that it extends the last audit's."""
        head = self._head
        if self.end_seq != self.seq:
            why = f"the signed head is entry {self.end_seq}, the statement ends at {self.seq}"
            self._note(Difference.GAP_IN_SEQ, why)
        elif head.entry_hash != self.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the signed head's hash is not that of the last entry")
        elif (head.used_units, head.limit_units) != (self.amounts.used_units, self.amounts.limit_units):
            self._note(Difference.AMOUNT_MISMATCH, "the signed head's totals are not those of the last entry")
        if self._pinned is not None and not self._has_met_pin:
            why = f"entry {self._pinned.seq}, up to which the chain was audited before, is not on it any more"
            self._note(Difference.HISTORY_REWRITTEN, why)
        if not self._has_met_summary:
            why = f"the summary speaks of entry {self._account.head_seq}, which the statement does not have"
            self._note(Difference.GAP_IN_SEQ, why)

    def _take_row(self, row: StatementEntry) -> None:
        self._check_place(row.entry)
        self._check_hashes(row)
        self.amounts.take(row)
        self._check_known_places(row.entry)
        self.seq = row.entry.seq
        self._created_at = max(self._created_at, row.entry.created_at)

    def _check_head(self, page: Statement) -> None:
        head, signature = page.signed_head.head, page.signed_head.signature
        told = (head.ledger_id, head.account_id)
        if told != (self._keyring.ledger_id, self._account.account_id):
            self._note(Difference.CHAIN_BREAK, f"the signed head is for another ledger or account: {told}")
        if not self._keyring.signed_head(asdict(head), signature):
            self._note(Difference.BAD_SIGNATURE, "the statement's head is not signed by a trusted key")
        elif self._is_retired(head.key_id, head.signed_at):
            why = f"the statement's head was signed by key {head.key_id} after its successor had taken over"
            self._note(Difference.BAD_SIGNATURE, why)
        here, first = ([each.seq, each.entry_hash, each.used_units, each.limit_units] for each in (head, self._head))
        if head.seq < self.end_seq or (head.seq == self.end_seq and here != first):
            self._note(Difference.HISTORY_REWRITTEN, f"the vendor signed two ends of the chain: {first} and {here}")

    def _check_place(self, entry: LedgerEntry) -> None:
        if not follows(self.seq, entry):
            self._note(Difference.GAP_IN_SEQ, f"entry {entry.seq} comes after entry {self.seq}", entry.seq)
        elif entry.kind == "restored":
            self._take_restore(Restore(self.seq + 1, entry.seq - 1))
        if entry.prev_hash != self.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the entry does not name the hash of the one before", entry.seq)
        if (entry.ledger_id, entry.account_id) != (self._keyring.ledger_id, self._account.account_id):
            self._note(Difference.CHAIN_BREAK, "the entry is of another ledger or account", entry.seq)
        if entry.created_at < self._created_at:
            self._note(Difference.CHAIN_BREAK, "the entry is older than the one before", entry.seq)
        if entry.signing_key_id not in self._keyring:
            self._note(Difference.BAD_SIGNATURE, f"signing key {entry.signing_key_id} is not trusted", entry.seq)
        elif self._is_retired(entry.signing_key_id, entry.created_at):
            why = f"key {entry.signing_key_id} signed it after its successor had taken over"
            self._note(Difference.BAD_SIGNATURE, why, entry.seq)

    def _take_restore(self, restore: Restore) -> None:
        self.restores.append(restore)
        if self._pinned is not None and self._pinned.seq in restore:
            self._has_met_pin = True
            why = f"entries {restore.first_seq} to {restore.last_seq} are lost, and the chain was audited up to "
            self._note(Difference.LEDGER_RESTORED, f"{why}{self._pinned.seq}", restore.last_seq + 1)

    def _check_hashes(self, row: StatementEntry) -> None:
        entry = row.entry
        self.entry_hash = entry.hash()
        if self.entry_hash != row.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the entry does not hash to what the statement says", entry.seq)
        if entry.items_hash != (items_hash(row.items) if row.items else None):
            self._note(Difference.CHAIN_BREAK, "the items do not hash to what the entry says", entry.seq)

    def _check_known_places(self, entry: LedgerEntry) -> None:
        if self._pinned is not None and entry.seq == self._pinned.seq:
            self._has_met_pin = True
            if self.entry_hash != self._pinned.entry_hash:
                self._note(Difference.HISTORY_REWRITTEN, "the entry is not the one that was audited before", entry.seq)
        if entry.seq == self._account.head_seq:
            self._has_met_summary = True
            self._check_summary(entry)

    def _check_summary(self, entry: LedgerEntry) -> None:
        told = self._account
        if told.head_hash != self.entry_hash:
            self._note(Difference.HISTORY_REWRITTEN, "the summary names another entry at this place", entry.seq)
        budget = (told.used_units, told.limit_units, told.remaining_units)
        if budget != (entry.used_units, entry.limit_units, entry.limit_units - entry.used_units):
            self._note(Difference.AMOUNT_MISMATCH, "the summary's budget is not that of the entry", entry.seq)
        bill = (self.amounts.units, self.amounts.amount_micro, self.amounts.currency)
        if (told.total.units, told.total.amount_micro, told.currency) != bill:
            self._note(Difference.AMOUNT_MISMATCH, "the summary's totals are not the sums of the entries", entry.seq)

    def _is_retired(self, key_id: str, at: int) -> bool:
        retired_at = self._retired_at.get(key_id)
        return retired_at is not None and at > retired_at + SUCCESSION_GRACE_MICRO

    def _note(self, difference: Difference, detail: str, seq: int | None = None) -> None:
        self._findings.add(difference, detail, seq=seq)


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
