"""Walking a statement: every entry, every item, every hash and every total is checked; nothing is sampled.

A verifier that looks at the two ends of a chain can be shown two histories with the same ends, so this one takes no
short cut.
"""

from __future__ import annotations

from vl2v_client.api.keyring import Keyring
from vl2v_client.api.responses import StatementPage, StatementRow
from vl2v_client.audit.report import Difference, Findings
from vl2v_client.cache.vendors import AuditedHead
from vl2v_contract.chain import GENESIS_HASH, LedgerEntry, items_hash


class ChainWalk:
    """The chain as far as it was read. Each difference is noted; the walk goes on from what the vendor showed.

    Attributes:
        seq: of the last entry.
        entry_hash: recomputed, of the last entry.
        units: charged less refunded.
        amount_micro: likewise.

    Args:
        account_id: whose chain.
        keyring: the vendor's trusted keys.
        pinned: the end of the chain at the last audit; it must still be on it.
        findings: where differences go.
    """

    def __init__(self, account_id: str, keyring: Keyring, pinned: AuditedHead | None, findings: Findings) -> None:
        self._account_id = account_id
        self._keyring = keyring
        self._pinned = pinned
        self._findings = findings
        self._prices: dict[int, tuple[int, str]] = {}
        self._used_units = 0
        self._created_at = 0
        self.seq = 0
        self.entry_hash = GENESIS_HASH
        self.limit_units = 0
        self.units = 0
        self.amount_micro = 0
        self.currency = ""

    def take(self, row: StatementRow) -> None:
        """Check the next entry."""
        entry = row.entry
        self._check_place(entry)
        self._check_hashes(row)
        self._check_amounts(row)
        self._check_price(entry)
        self.seq = entry.seq
        self._created_at = max(self._created_at, entry.created_at)
        self.currency = entry.currency

    def check_head(self, page: StatementPage) -> None:
        """Check that the page's head is signed, for this account."""
        told = (page.head.get("ledger_id"), page.head.get("account_id"))
        if told != (self._keyring.ledger_id, self._account_id):
            self._note(Difference.CHAIN_BREAK, f"the signed head is for another ledger or account: {told}")
        if not self._keyring.signed_head(page.head, page.head_signature):
            self._note(Difference.BAD_SIGNATURE, "the statement's head is not signed by a trusted key")

    def finish(self, page: StatementPage) -> None:
        """Check that the signed head is the end of the chain that was shown, and that it extends the last audit's."""
        head = page.head
        if head.get("seq") != self.seq:
            self._note(
                Difference.GAP_IN_SEQ, f"the signed head is entry {head.get('seq')}, the statement ends at {self.seq}"
            )
        elif head.get("entry_hash") != self.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the signed head's hash is not that of the last entry")
        elif (head.get("used_units"), head.get("limit_units")) != (self._used_units, self.limit_units):
            self._note(Difference.AMOUNT_MISMATCH, "the signed head's totals are not those of the last entry")
        if self._pinned is not None and self.seq < self._pinned.seq:
            why = f"the chain ends at entry {self.seq}, but was audited up to {self._pinned.seq} before"
            self._note(Difference.HISTORY_REWRITTEN, why)

    def _check_place(self, entry: LedgerEntry) -> None:
        if entry.seq != self.seq + 1:
            self._note(Difference.GAP_IN_SEQ, f"entry {entry.seq} comes after entry {self.seq}", entry.seq)
        if entry.prev_hash != self.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the entry does not name the hash of the one before", entry.seq)
        if (entry.ledger_id, entry.account_id) != (self._keyring.ledger_id, self._account_id):
            self._note(Difference.CHAIN_BREAK, "the entry is of another ledger or account", entry.seq)
        if entry.created_at < self._created_at:
            self._note(Difference.CHAIN_BREAK, "the entry is older than the one before", entry.seq)
        if entry.signing_key_id not in self._keyring:
            self._note(Difference.BAD_SIGNATURE, f"signing key {entry.signing_key_id} is not trusted", entry.seq)

    def _check_hashes(self, row: StatementRow) -> None:
        entry = row.entry
        self.entry_hash = entry.hash()
        if self.entry_hash != row.entry_hash:
            self._note(Difference.CHAIN_BREAK, "the entry does not hash to what the statement says", entry.seq)
        if entry.items_hash != (items_hash(row.items) if row.items else None):
            self._note(Difference.CHAIN_BREAK, "the items do not hash to what the entry says", entry.seq)
        if self._pinned is not None and entry.seq == self._pinned.seq and self.entry_hash != self._pinned.entry_hash:
            self._note(Difference.HISTORY_REWRITTEN, "the entry is not the one that was audited before", entry.seq)

    def _check_amounts(self, row: StatementRow) -> None:
        entry = row.entry
        sign = {"charge": 1, "refund": -1, "topup": 0}[entry.kind]
        self._used_units += sign * entry.units
        self.limit_units += entry.units if entry.kind == "topup" else 0
        self.units += sign * entry.units
        self.amount_micro += sign * entry.amount_micro
        if entry.kind == "charge" and (entry.units != len(row.items) or any(item.units != 1 for item in row.items)):
            why = f"{len(row.items)} items were charged {entry.units} units, not one each"
            self._note(Difference.AMOUNT_MISMATCH, why, entry.seq)
        if entry.amount_micro != entry.units * entry.unit_price_micro:
            self._note(Difference.AMOUNT_MISMATCH, "the amount is not units times unit price", entry.seq)
        if (entry.used_units, entry.limit_units) != (self._used_units, self.limit_units):
            why = f"used and limit should be {self._used_units} and {self.limit_units}, not "
            self._note(Difference.AMOUNT_MISMATCH, f"{why}{entry.used_units} and {entry.limit_units}", entry.seq)
            self._used_units, self.limit_units = entry.used_units, entry.limit_units

    def _check_price(self, entry: LedgerEntry) -> None:
        if entry.price_id is None:
            return
        told = (entry.unit_price_micro, entry.currency)
        if self._prices.setdefault(entry.price_id, told) != told:
            self._note(Difference.PRICE_MISMATCH, f"price {entry.price_id} has two values", entry.seq)

    def _note(self, difference: Difference, detail: str, seq: int | None = None) -> None:
        self._findings.add(difference, detail, seq=seq)
