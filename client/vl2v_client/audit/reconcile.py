"""Laying the vendor's entries beside this cache's own ledger, item by item."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from vl2v_client.audit.audit_report import AuditReport, Difference, OtherCharges
from vl2v_client.audit.notes import KeySet, Notes
from vl2v_client.cache.records import PurchaseRecords
from vl2v_client.core.errors import VendorError
from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import StatementEntry, Summary


class Reconciliation:
    """Takes the statement's pages in order; `finish` names what only the whole statement can show.

    Args:
        records: This cache's own ledger.
        account: The account, and the API key that asks.
        report: Takes the differences, and what other keys and other software bought.
        notes: Takes what has to be compared in the end.
        accepted_seq: Up to this entry the user has accepted what other software bought with our keys.
    """

    def __init__(
        self, records: PurchaseRecords, account: Summary, report: AuditReport, notes: Notes, *, accepted_seq: int = 0
    ) -> None:
        self._records = records
        self._place = place = (account.ledger_id, account.account_id)
        self._report, self._note = report, report.findings.add
        self._last_receipt_seq = records.last_seq(*place)
        self._agreed_prices = records.agreed_prices(account.ledger_id)
        self._own_keys = {account.api_key_id, *records.api_key_ids(*place)}
        self._accepted_seq = accepted_seq
        self._accepted: defaultdict[str, OtherCharges] = defaultdict(OtherCharges)
        self._matched_entries, self._other_requests, self._other_items = (KeySet(notes) for _ in range(3))
        self._lost, self._paid_elsewhere = KeySet(notes), KeySet(notes)
        self._examples: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._unpaid_items = 0
        for other in records.accounts_of_key(account.ledger_id, account.api_key_id) - {account.account_id}:
            why = f"receipts made with our key {account.api_key_id} name account {other}, the statement another"
            self._note(Difference.CHAIN_BREAK, why)

    def take(self, rows: Sequence[StatementEntry]) -> None:
        """Reconcile a page.

        Raises:
            VendorError: An item key that is none, so that nothing can be compared.
        """
        seqs = [row.entry.seq for row in rows]
        receipts = self._records.receipt_hashes(*self._place, seqs)
        paid = self._records.paid_keys(*self._place, seqs)
        imported = self._records.imported_seqs(*self._place, seqs)
        for row in rows:
            seq = row.entry.seq
            is_repeated = False
            if receipts.get(seq) == row.entry_hash:
                is_repeated = bool(self._matched_entries.add([_of_seq(seq)]))
            else:
                self._other_requests.add([row.entry.request_id.encode()])
                if seq in receipts:
                    self._compare(row)
            if row.entry.kind == "charge":
                self._take_items(row, paid.get(seq, set()), is_repeated=is_repeated, is_imported=seq in imported)

    def finish(self, restores: Sequence[range], pinned_seq: int, *, only_ours: bool) -> None:
        """Name lost responses, what other software bought, missing charges and what a restored ledger has lost.

        Args:
            restores: Numbers that the statement skips under the vendor's signature.
            pinned_seq: How far an earlier audit has read; what it has reported is only totalled. 0 for the first.
            only_ours: Nothing else uses our keys, so what they bought and this cache never named is a difference.
        """
        report = self._report
        report.matched_items += self._unpaid_items
        for key in (key for chunk in self.lost_items() for key in chunk):
            self._note(Difference.LOST_RESPONSE, "charged, but not paid in this cache", item_key=key)
            report.matched_items -= 1
        for api_key_id in self._own_keys:
            others = report.other_keys.pop(api_key_id, OtherCharges())
            accepted = self._accepted.get(api_key_id, OtherCharges())
            if only_ours:
                self._note_unexplained(api_key_id, others.items + accepted.items)
            else:
                report.other_software.merge(others)
                report.accepted.merge(accepted)
        for api_key_id, accepted in self._accepted.items():
            if api_key_id not in self._own_keys:
                report.other_keys[api_key_id].merge(accepted)
        for chunk in self._paid_elsewhere.chunks():
            for paid, item in self._records.named_items(chunk).items():
                if item.seq is not None and _of_seq(item.seq) in self._matched_entries:
                    why = f"charged again: entry {item.seq} paid for it"
                    self._note(Difference.DUPLICATE_ITEM, why, item_key=paid.hex())
        self._check_receipts(restores, pinned_seq)

    def lost_items(self) -> Iterator[list[str]]:
        """Yield item keys charged there and, as of now, not paid here, in chunks; a purchase may run meanwhile."""
        for chunk in self._lost.chunks():
            named = self._records.named_items(chunk)
            lost = [key.hex() for key in chunk if key not in named or named[key].state != "paid"]
            if lost:
                yield lost

    def _take_items(self, row: StatementEntry, paid: set[bytes], *, is_repeated: bool, is_imported: bool) -> None:
        entry = row.entry
        try:
            keys = Counter(bytes.fromhex(item.item_key) for item in row.items)
        except ValueError as error:
            raise VendorError(f"the vendor's entry {entry.seq} has an item key that is none; ask the vendor") from error
        matched = keys.keys() & paid
        others = [key for key in keys if key not in matched]
        repeated = [key for key, count in keys.items() if count > 1]
        if is_repeated:
            repeated += matched
        else:
            self._report.matched_items += len(matched)
        if others:
            repeated += self._other_items.add(others)
            self._take_others(row, others, has_ours=bool(matched) and not is_imported)
        elif matched and not is_imported:
            self._take_own(row)
        for key in repeated:
            self._note(Difference.DUPLICATE_ITEM, "charged before", entry.seq, key.hex())

    def _take_others(self, row: StatementEntry, keys: Sequence[bytes], *, has_ours: bool) -> None:
        """Compare items that our ledger does not say were paid by this entry."""
        entry = row.entry
        named = self._records.named_items(keys)
        if is_own := bool(named) or has_ours:
            self._take_own(row)
        for key in keys:
            item = named.get(key)
            if item is None:
                continue
            if item.state != "paid":
                self._unpaid_items += not self._lost.add([key])
                if (entry.modality, entry.model_id) != (item.modality, item.model_id):
                    why = f"charged as {entry.modality} of {entry.model_id}, asked for as {item.modality} of "
                    self._note(Difference.PRICE_MISMATCH, f"{why}{item.model_id}", entry.seq, key.hex())
            elif (item.ledger_id, item.account_id) == self._place and item.seq != entry.seq:
                self._paid_elsewhere.add([key])
        self._take_unnamed(entry, [key.hex() for key in keys if key not in named], is_own=is_own)

    def _take_unnamed(self, entry: LedgerEntry, item_keys: Sequence[str], *, is_own: bool) -> None:
        """Take items that this cache never named: no other software can have bought them in a request of ours."""
        if not item_keys:
            return
        api_key_id = entry.api_key_id
        if is_own or api_key_id is None:
            where = "under no API key" if api_key_id is None else "in a request of this cache"
            for item_key in item_keys:
                self._note(Difference.UNEXPLAINED_CHARGE, f"charged {where}, which never named it", entry.seq, item_key)
            return
        kept = self._accepted if entry.seq <= self._accepted_seq else self._report.other_keys
        kept[api_key_id].take(entry.seq, len(item_keys), entry.unit_price_micro)
        examples = self._examples[api_key_id]
        examples += [(entry.seq, item_key) for item_key in item_keys[: 3 - len(examples)]]
        told = (entry.unit_price_micro, entry.currency)
        agreed = {(micro, currency) for price_id, micro, currency in self._agreed_prices if price_id == entry.price_id}
        if agreed and told not in agreed:
            why = f"price {entry.price_id} is {told[0]} micro-units here, and was agreed to at another value"
            self._note(Difference.PRICE_MISMATCH, why, entry.seq)

    def _note_unexplained(self, api_key_id: str, items: int) -> None:
        examples = self._examples[api_key_id]
        for seq, item_key in examples:
            why = f"charged to our key {api_key_id}, but this cache never named it"
            self._note(Difference.UNEXPLAINED_CHARGE, why, seq, item_key)
        if more := items - len(examples):
            self._report.findings.counts[Difference.UNEXPLAINED_CHARGE] += more

    def _take_own(self, row: StatementEntry) -> None:
        """Check an entry that charges items of ours: made with our key, so at a price that we agreed to."""
        entry = row.entry
        if entry.api_key_id is not None:
            self._own_keys.add(entry.api_key_id)
        price = (entry.price_id, entry.unit_price_micro, entry.currency)
        if price not in self._agreed_prices:  # perhaps it was agreed to since, by a purchase beside this audit
            self._agreed_prices = self._records.agreed_prices(self._place[0])
        if price not in self._agreed_prices:
            why = f"price {entry.price_id} at {entry.unit_price_micro} micro-units was never agreed to"
            self._note(Difference.PRICE_MISMATCH, why, entry.seq)
        elif sum(price_id == entry.price_id for price_id, _, _ in self._agreed_prices) > 1:
            why = f"the vendor has named two values of price {entry.price_id}, which cannot change"
            self._note(Difference.PRICE_MISMATCH, why, entry.seq)

    def _compare(self, row: StatementEntry) -> None:
        ours, theirs = self._records.receipt(*self._place, row.entry.seq).entry, row.entry
        if ours.request_id == theirs.request_id:
            if (ours.price_id, ours.unit_price_micro) != (theirs.price_id, theirs.unit_price_micro):
                why = f"the receipt says {ours.unit_price_micro} micro-units, the statement {theirs.unit_price_micro}"
                self._note(Difference.PRICE_MISMATCH, why, theirs.seq)
            if (ours.units, ours.amount_micro) != (theirs.units, theirs.amount_micro):
                why = f"the receipt says {ours.units} units, the statement {theirs.units}"
                self._note(Difference.AMOUNT_MISMATCH, why, theirs.seq)
        self._note(Difference.HISTORY_REWRITTEN, "we hold a signed receipt for another entry at this place", theirs.seq)

    def _check_receipts(self, restores: Sequence[range], pinned_seq: int) -> None:
        last_seq = self._report.head_seq
        must_have = max(self._last_receipt_seq, last_seq)
        for seq, request_id, units, amount_micro in self._records.receipt_places(*self._place):
            if seq > must_have or _of_seq(seq) in self._matched_entries:
                continue
            restore = next((one for one in restores if seq in one), None)
            if restore is not None:
                self._report.lost_by_restore.add(units, amount_micro)
                if pinned_seq < restore.stop:
                    why = f"the receipt of request {request_id} is of an entry that the vendor lost"
                    self._note(Difference.LEDGER_RESTORED, why, seq)
            elif request_id.encode() not in self._other_requests:
                why = f"the statement has no entry for request {request_id}, which we hold a receipt for"
                self._note(Difference.MISSING_CHARGE, why, seq)
            elif seq > last_seq:  # a number within the statement was compared when it came
                why = f"request {request_id} is shown at another place than its receipt says"
                self._note(Difference.HISTORY_REWRITTEN, why, seq)


def _of_seq(seq: int) -> bytes:
    return seq.to_bytes(8, "big")
