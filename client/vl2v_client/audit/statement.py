"""Walking a statement: every entry, every item, every hash and every signature is checked; nothing is sampled.

A verifier that looks at the two ends of a chain can be shown two histories with the same ends, so this one takes no
short cut. It reads up to the end that the first page's head has signed, so that a ledger that grows meanwhile, or a
vendor that never stops, cannot keep it busy for ever.
"""

from dataclasses import asdict

from vl2v_client.api.keyring import Keyring
from vl2v_client.audit.audit_report import AuditReport, Difference
from vl2v_client.audit.notes import Notes
from vl2v_client.audit.signatures import SignatureCheck
from vl2v_client.cache.records import AuditedHead
from vl2v_contract.chain import LedgerEntry, follows, items_hash
from vl2v_contract.records import SignedStatement, StatementEntry, Summary, head_message


class AmountCheck:
    """Sums as the entries make them, in the report. Each difference is noted; the sums go on from what the vendor says.

    Attributes:
        used_units: Charged less refunded, as running total.
    """

    def __init__(self, report: AuditReport, notes: Notes) -> None:
        self._report, self._findings = report, report.findings
        self._run = notes.run
        self._charges = notes.table("seq INTEGER PRIMARY KEY, terms INTEGER NOT NULL, left_units INTEGER NOT NULL")
        self._prices: dict[int, tuple[object, ...]] = {}
        self.used_units = 0

    def take(self, row: StatementEntry) -> None:
        """Check the next entry."""
        entry, sums = row.entry, self._report
        sign = {"charge": 1, "refund": -1}.get(entry.kind, 0)
        self.used_units += sign * entry.units
        sums.units += sign * entry.units
        sums.amount_micro += sign * entry.amount_micro
        sums.limit_units += entry.units if entry.kind == "topup" else 0
        sums.currency = sums.currency or entry.currency
        self._findings.add_if(Difference.AMOUNT_MISMATCH, entry.seq, self._wrong_amounts(row))
        self._findings.add_if(Difference.PRICE_MISMATCH, entry.seq, self._wrong_prices(entry))
        self.used_units, sums.limit_units = entry.used_units, entry.limit_units
        self._check_refund(entry)

    def _wrong_amounts(self, row: StatementEntry) -> dict[str, bool]:
        entry, items, is_charge = row.entry, len(row.items), row.entry.kind == "charge"
        is_one_each = all(item.units == 1 for item in row.items) and (entry.units == items or not is_charge)
        told, summed = (entry.used_units, entry.limit_units), (self.used_units, self._report.limit_units)
        return {
            f"{items if is_charge else 0} items were charged {entry.units} units, not one each": not is_one_each,
            f"a {entry.kind} has no items, this one has {items}": items > 0 and not is_charge,
            f"a {entry.kind} of {entry.units} units cannot be": (entry.units == 0) != (entry.kind == "restored"),
            "the amount is not units times unit price": entry.amount_micro != entry.units * entry.unit_price_micro,
            f"used and limit should be {summed[0]} and {summed[1]}, not {told[0]} and {told[1]}": told != summed,
            f"{told[0]} units are used of a budget of {told[1]}": told[0] > told[1],
        }

    def _wrong_prices(self, entry: LedgerEntry) -> dict[str, bool]:
        price_id, told = entry.price_id, (entry.unit_price_micro, entry.currency, entry.model_id, entry.modality)
        known = told if price_id is None else self._prices.setdefault(price_id, told)
        moved = f"the account was billed in {self._report.currency} before, not in {entry.currency}"
        return {
            moved: entry.currency != self._report.currency,
            f"a {entry.kind} with price {price_id}": (price_id is not None) != (entry.kind in ("charge", "refund")),
            "a unit price without a price": price_id is None and entry.unit_price_micro != 0,
            f"price {price_id} has two values": known != told,
        }

    def _check_refund(self, entry: LedgerEntry) -> None:
        """Note how many units of a charge are left to be refunded, and take a refund off them, on the same terms."""
        model = (entry.modality, entry.model_id, entry.weights_sha, entry.precision, entry.preprocessing_id)
        payer = (entry.api_key_id, entry.endpoint)
        terms = hash((payer, model, entry.price_id, entry.unit_price_micro, entry.currency))
        if entry.kind == "charge":
            self._run(f"INSERT OR IGNORE INTO {self._charges} VALUES (?, ?, ?)", (entry.seq, terms, entry.units))
        elif entry.kind == "refund":
            where = "seq = ? AND terms = ? AND left_units >= ?"
            take = f"UPDATE {self._charges} SET left_units = left_units - ? WHERE {where}"  # nosec # a table of our naming
            if self._run(take, (entry.units, entry.ref_seq or 0, terms, entry.units)).rowcount != 1:
                why = f"it refunds {entry.units} units, which entry {entry.ref_seq} has not charged to this key"
                self._findings.add(Difference.AMOUNT_MISMATCH, f"{why} at this price, or not any more", entry.seq)


class ChainWalk:
    """The chain as far as it was read. Each difference is noted; the walk goes on from what the vendor showed.

    Attributes:
        end_seq: The last entry that this audit covers.
        restores: Numbers that the vendor lost and said so under its signature.

    Args:
        account: What the vendor's summary said, just before the statement.
        keyring: The vendor's trusted keys.
        pinned: The end of the chain at the last audit; it must still be on it.
        first: The statement's first page, whose head says how far to read.
        report: Takes the differences, the sums, and the last entry taken as its head.
        notes: Takes what the sums need.
    """

    def __init__(
        self,
        account: Summary,
        keyring: Keyring,
        pinned: AuditedHead | None,
        first: SignedStatement,
        report: AuditReport,
        notes: Notes,
    ) -> None:
        self._account = account
        self._keyring = keyring
        self._names = (keyring.ledger_id, account.account_id)
        self._retired_at = {key.key_id: key.retired_at for key in keyring.keys}
        self._pinned = pinned
        self._head = first.signed_head.head
        self._report, self._note, self._note_if = report, report.findings.add, report.findings.add_if
        self._created_at = 0
        self._has_met_pin = pinned is None
        self._has_met_summary = account.head_seq == 0
        self.end_seq = self._head.seq
        self._amounts = AmountCheck(report, notes)
        self._signatures = SignatureCheck(keyring, report, 0 if pinned is None else pinned.seq)
        self.restores: list[range] = []

    def take(self, page: SignedStatement) -> list[StatementEntry]:
        """Check the next page; returns the rows that this audit covers."""
        self._check_head(page)
        # Entries that were made since the first page are left to the next audit.
        last_seq, shown = page.signed_head.head.seq, page.signatures
        kept = [place for place, row in enumerate(page.entries) if not self.end_seq < row.entry.seq <= last_seq]
        rows = [page.entries[place] for place in kept]
        for row in rows:
            self._check_place(row.entry)
            self._check_hashes(row)
            self._amounts.take(row)
            self._check_known_places(row.entry)
            self._report.head_seq = row.entry.seq
            self._created_at = max(self._created_at, row.entry.created_at)
        self._signatures.take(rows, None if shown is None else [shown[place] for place in kept])
        self._report.entries += len(rows)
        return rows

    def finish(self) -> None:
        """Check that the signed head is the end of the chain that was shown, and that it extends the last audit's."""
        head, read = self._head, self._report
        self._signatures.finish()
        if self.end_seq != read.head_seq:
            why = f"the signed head is entry {self.end_seq}, the statement ends at {read.head_seq}"
            self._note(Difference.GAP_IN_SEQ, why)
        elif head.entry_hash != read.head_hash:
            self._note(Difference.CHAIN_BREAK, "the signed head's hash is not that of the last entry")
        elif (head.used_units, head.limit_units) != (self._amounts.used_units, read.limit_units):
            self._note(Difference.AMOUNT_MISMATCH, "the signed head's totals are not those of the last entry")
        if self._pinned is not None and not self._has_met_pin:
            why = f"entry {self._pinned.seq}, up to which the chain was audited before, is not on it any more"
            self._note(Difference.HISTORY_REWRITTEN, why)
        if not self._has_met_summary:
            why = f"the summary speaks of entry {self._account.head_seq}, which the statement does not have"
            self._note(Difference.GAP_IN_SEQ, why)

    def _check_head(self, page: SignedStatement) -> None:
        head, told = page.signed_head.head, (page.signed_head.head.ledger_id, page.signed_head.head.account_id)
        if told != self._names:
            self._note(Difference.CHAIN_BREAK, f"the signed head is for another ledger or account: {told}")
        if not self._keyring.verifies(head.key_id, head_message(asdict(head)), page.signed_head.signature):
            self._note(Difference.BAD_SIGNATURE, "the statement's head is not signed by a trusted key")
        elif self._is_retired(head.key_id, head.signed_at):
            why = f"the statement's head was signed by key {head.key_id} after its successor had taken over"
            self._note(Difference.BAD_SIGNATURE, why)
        here, first = ([each.seq, each.entry_hash, each.used_units, each.limit_units] for each in (head, self._head))
        if head.seq < self.end_seq or (head.seq == self.end_seq and here != first):
            self._note(Difference.HISTORY_REWRITTEN, f"the vendor signed two ends of the chain: {first} and {here}")

    def _check_place(self, entry: LedgerEntry) -> None:
        before = self._report
        if not follows(before.head_seq, entry):
            self._note(Difference.GAP_IN_SEQ, f"entry {entry.seq} comes after entry {before.head_seq}", entry.seq)
        elif entry.kind == "restored":
            lost = range(before.head_seq + 1, entry.seq)
            self.restores.append(lost)
            if self._pinned is not None and self._pinned.seq in lost:
                self._has_met_pin = True
                why = f"entries {lost[0]} to {lost[-1]} are lost, and the chain was audited up to {self._pinned.seq}"
                self._note(Difference.LEDGER_RESTORED, why, entry.seq)
        breaks = {
            "the entry does not name the hash of the one before": entry.prev_hash != before.head_hash,
            "the entry is of another ledger or account": (entry.ledger_id, entry.account_id) != self._names,
            "the entry is older than the one before": entry.created_at < self._created_at,
        }
        self._note_if(Difference.CHAIN_BREAK, entry.seq, breaks)
        key_id = entry.signing_key_id
        faults = {
            f"signing key {key_id} is not trusted": key_id not in self._keyring,
            f"key {key_id} signed it after its successor had taken over": self._is_retired(key_id, entry.created_at),
        }
        self._note_if(Difference.BAD_SIGNATURE, entry.seq, faults)

    def _check_hashes(self, row: StatementEntry) -> None:
        entry_hash = self._report.head_hash = row.entry.hash()
        of_items = items_hash(row.items) if row.items else None
        breaks = {
            "the entry does not hash to what the statement says": entry_hash != row.entry_hash,
            "the items do not hash to what the entry says": row.entry.items_hash != of_items,
        }
        self._note_if(Difference.CHAIN_BREAK, row.entry.seq, breaks)

    def _check_known_places(self, entry: LedgerEntry) -> None:
        if self._pinned is not None and entry.seq == self._pinned.seq:
            self._has_met_pin = True
            if self._report.head_hash != self._pinned.entry_hash:
                self._note(Difference.HISTORY_REWRITTEN, "the entry is not the one that was audited before", entry.seq)
        told, sums = self._account, self._report
        if entry.seq != told.head_seq:
            return
        self._has_met_summary = True
        if told.head_hash != sums.head_hash:
            self._note(Difference.HISTORY_REWRITTEN, "the summary names another entry at this place", entry.seq)
        budget = (told.used_units, told.limit_units, told.remaining_units)
        left = (entry.used_units, entry.limit_units, entry.limit_units - entry.used_units)
        bill, summed = (told.total.units, told.total.amount_micro), (sums.units, sums.amount_micro)
        is_summed = bill == summed and told.currency == sums.currency
        faults = {
            "the summary's budget is not that of the entry": budget != left,
            "the summary's totals are not the sums of the entries": not is_summed,
        }
        self._note_if(Difference.AMOUNT_MISMATCH, entry.seq, faults)

    def _is_retired(self, key_id: str, at: int) -> bool:
        retired_at = self._retired_at.get(key_id)
        grace_micro = 3_600_000_000  # the time to restart every replica with the new key
        return retired_at is not None and at > retired_at + grace_micro
