"""The signatures of entries: each was made by the vendor in the transaction that made its entry, or it has none.

The head vouches for the whole chain whoever wrote it. An entry's own signature says that the vendor's software made it:
whoever can write the database alone can append an entry by its public hash, such as a top-up, but not sign it.
"""

from collections.abc import Sequence

from vl2v_client.api.keyring import Keyring
from vl2v_client.audit.audit_report import AuditReport, Difference
from vl2v_contract.records import StatementEntry, receipt_message


class SignatureCheck:
    """Takes the statement's entries in order; `finish` names those at its end that nothing signed covers.

    Args:
        keyring: The vendor's trusted keys.
        report: Takes the differences, how many entries came without signatures, and up to where none is expected.
        pinned_seq: How far an earlier audit has read, which has named what has no signature; 0 for the first.
    """

    def __init__(self, keyring: Keyring, report: AuditReport, pinned_seq: int) -> None:
        self._keyring, self._report, self._pinned_seq = keyring, report, pinned_seq
        self._unsigned: list[int] = []
        self._is_first = True

    def take(self, rows: Sequence[StatementEntry], signatures: Sequence[str | None] | None) -> None:
        """Check the next entries; without `signatures` the vendor does not show them."""
        if signatures is None:
            self._report.unchecked_signatures += len(rows)
            return
        for row, signature in zip(rows, signatures, strict=True):
            if signature is None:
                self._unsigned.append(row.entry.seq)
            else:
                self._take_signed(row, signature)

    def finish(self) -> None:
        """Name the unsigned entries that no signed one follows."""
        for seq in self._unsigned:
            self._report.findings.add(Difference.UNSIGNED_ENTRY, "nothing that the vendor signed follows it", seq)
        self._report.is_end_signed = not self._unsigned

    def _take_signed(self, row: StatementEntry, signature: str) -> None:
        entry = row.entry
        if self._unsigned and self._is_first:  # older than signatures, and covered by this one
            self._report.unsigned_before = entry.seq
        elif self._unsigned:
            for seq in self._unsigned:
                if seq > self._pinned_seq:
                    why = f"the signature of entry {entry.seq} covers it, but it was made without one of its own"
                    self._report.findings.add(Difference.UNSIGNED_ENTRY, why, seq)
        self._unsigned, self._is_first = [], False
        key_id = entry.signing_key_id
        if key_id in self._keyring and not self._keyring.verifies(key_id, receipt_message(row.entry_hash), signature):
            why = f"its signature is not that of {key_id}, the key that it names"
            self._report.findings.add(Difference.BAD_SIGNATURE, why, entry.seq)
