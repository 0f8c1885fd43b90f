"""Laying the vendor's entries beside this cache's own ledger, item by item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vl2v_client.api.responses import StatementRow
from vl2v_client.audit.report import Difference, Findings, KeyTotals
from vl2v_client.cache.records import KeySet, PurchaseRecords
from vl2v_client.core.deliveries import SignedReceipt

_NO_KEY = "none"
"""A charge that names no API key is nobody else's, so it has to be explained."""


@dataclass(slots=True)
class _Unknown:
    """Items of one API key that this cache never named."""

    totals: KeyTotals = field(default_factory=KeyTotals)
    examples: list[tuple[int, str]] = field(default_factory=list)


class Reconciliation:
    """Takes the statement's pages in order; `finish` names what only the whole statement can show.

    Attributes:
        matched_items: paid here, charged there.
        other_keys: totals of the account's other API keys.
    """

    def __init__(
        self, records: PurchaseRecords, ledger_id: str, account_id: str, api_key_id: str, findings: Findings
    ) -> None:
        self._records = records
        self._ledger_id = ledger_id
        self._account_id = account_id
        self._findings = findings
        # Receipts up to here existed before the statement was made, so it must have them.
        self._last_receipt_seq = records.last_seq(ledger_id, account_id)
        self._agreed_prices = records.agreed_prices(ledger_id)
        self._own_keys = {api_key_id, *records.api_key_ids(ledger_id, account_id)}
        self._seen_items = KeySet()
        self._seen_requests = KeySet()
        self._lost = KeySet()
        self._unknown: dict[str, _Unknown] = defaultdict(_Unknown)
        self.matched_items = 0
        self.other_keys: dict[str, KeyTotals] = {}

    def close(self) -> None:
        """Drop what was noted on disk."""
        for keys in (self._seen_items, self._seen_requests, self._lost):
            keys.close()

    def take(self, rows: Sequence[StatementRow]) -> None:
        """Reconcile a page."""
        receipts = self._records.receipts_among(self._ledger_id, self._account_id, [row.entry.seq for row in rows])
        states = self._records.states(item.item_key for row in rows for item in row.items)
        self._seen_requests.add(row.entry.request_id for row in rows)
        for row in rows:
            receipt = receipts.get(row.entry.seq)
            if receipt is not None and receipt.entry_hash != row.entry_hash:
                self._compare(receipt, row)
            if row.entry.kind == "charge":
                self._take_items(row, states)

    def finish(self, last_seq: int) -> None:
        """Name lost responses, unexplained charges and missing charges.

        Args:
            last_seq: of the statement's last entry.
        """
        for key in (key for chunk in self.lost_items() for key in chunk):
            self._findings.add(Difference.LOST_RESPONSE, "charged, but not paid in this cache", item_key=key)
        for api_key_id, unknown in self._unknown.items():
            if api_key_id not in self._own_keys and api_key_id != _NO_KEY:
                self.other_keys[api_key_id] = unknown.totals
                continue
            for seq, key in unknown.examples:
                why = f"charged to our key {api_key_id}, but this cache never named it"
                self._findings.add(Difference.UNEXPLAINED_CHARGE, why, seq=seq, item_key=key)
            self._findings.counts[Difference.UNEXPLAINED_CHARGE] += unknown.totals.items - len(unknown.examples)
        must_have = max(self._last_receipt_seq, last_seq)
        for receipt in self._records.receipts(self._ledger_id, self._account_id):
            if receipt.entry.seq <= must_have and receipt.entry.request_id not in self._seen_requests:
                why = f"the statement has no entry for request {receipt.entry.request_id}, which we hold a receipt for"
                self._findings.add(Difference.MISSING_CHARGE, why, seq=receipt.entry.seq)

    def lost_items(self) -> Iterator[list[str]]:
        """Item keys charged there and, as of now, not paid here, in chunks; a purchase may run meanwhile."""
        for chunk in self._lost.chunks():
            states = self._records.states(chunk)
            lost = [key for key in chunk if states.get(key) != "paid"]
            if lost:
                yield lost

    def _take_items(self, row: StatementRow, states: dict[str, str]) -> None:
        entry = row.entry
        keys = [item.item_key for item in row.items]
        repeated = self._seen_items.add(keys)
        for key in repeated:
            self._findings.add(Difference.DUPLICATE_ITEM, "charged before", seq=entry.seq, item_key=key)
        known = [key for key in keys if key in states]
        self.matched_items += sum(states[key] == "paid" for key in known) - sum(key in states for key in repeated)
        self._lost.add(key for key in known if states[key] != "paid")
        if known:
            self._take_own(row)
        api_key_id = entry.api_key_id or _NO_KEY
        for item in row.items:
            if item.item_key not in states:
                unknown = self._unknown[api_key_id]
                unknown.totals.items += 1
                unknown.totals.units += item.units
                unknown.totals.amount_micro += item.units * entry.unit_price_micro
                if len(unknown.examples) < 3:
                    unknown.examples.append((entry.seq, item.item_key))

    def _take_own(self, row: StatementRow) -> None:
        """An entry that charges items of ours: made with our key, so at a price that we agreed to."""
        entry = row.entry
        if entry.api_key_id is not None:
            self._own_keys.add(entry.api_key_id)
        if (entry.price_id, entry.unit_price_micro, entry.currency) not in self._agreed_prices:
            why = f"price {entry.price_id} at {entry.unit_price_micro} micro-units was never agreed to"
            self._findings.add(Difference.PRICE_MISMATCH, why, seq=entry.seq)

    def _compare(self, receipt: SignedReceipt, row: StatementRow) -> None:
        ours, theirs = receipt.entry, row.entry
        if ours.request_id == theirs.request_id:
            if (ours.price_id, ours.unit_price_micro) != (theirs.price_id, theirs.unit_price_micro):
                why = f"the receipt says {ours.unit_price_micro} micro-units, the statement {theirs.unit_price_micro}"
                self._findings.add(Difference.PRICE_MISMATCH, why, seq=theirs.seq)
            if (ours.units, ours.amount_micro) != (theirs.units, theirs.amount_micro):
                why = f"the receipt says {ours.units} units, the statement {theirs.units}"
                self._findings.add(Difference.AMOUNT_MISMATCH, why, seq=theirs.seq)
        self._findings.add(
            Difference.HISTORY_REWRITTEN, "we hold a signed receipt for another entry at this place", seq=theirs.seq
        )
