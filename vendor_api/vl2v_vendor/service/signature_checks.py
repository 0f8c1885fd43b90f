"""The checks of signatures: of each account's entries, and of the staff's acts."""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import act_message, receipt_message, verify
from vl2v_vendor.service.verification import VerificationReport


@dataclass(frozen=True, slots=True)
class SignedAct:
    """An act of the staff's log with its signature, as stored.

    Attributes:
        computed_hash: Hash of its row after the act before it; None for a signature whose act is gone.
        stored_hash: Hash that was signed; None for an act without a signature, as are `key_id` and `signature`.
        begins: Whether it is an act that signed what was there without a signature.
    """

    act_id: int
    computed_hash: str | None
    stored_hash: str | None
    key_id: str | None
    signature: str | None
    begins: bool


def check_acts(
    acts: Iterable[SignedAct], public_keys: Mapping[str, str], report: VerificationReport, *, is_older: bool
) -> None:
    """Report acts that are not as they were signed, in order of their ids.

    Args:
        acts: Acts and signatures.
        public_keys: Published signing keys by id.
        report: Report of what is wrong.
        is_older: Whether the ledger is of an older version, so that nothing in it is signed yet.
    """
    unsigned_ids: list[int] = []
    for act in acts:
        if act.stored_hash is None:
            unsigned_ids.append(act.act_id)
            continue
        if not act.begins:
            _report_unsigned(unsigned_ids, report)
        unsigned_ids = []
        if act.computed_hash != act.stored_hash:
            gone = "is gone" if act.computed_hash is None else "or the one before it is not the one that was signed"
            report.add(None, None, "log_chain_break", f"act {act.act_id} of the staff's log {gone}")
        public_key = public_keys.get(act.key_id or "", "")
        if not _is_signed(public_key, act_message, act.stored_hash, act.signature or ""):
            report.add(
                None, None, "bad_signature", f"act {act.act_id} of the staff's log is not signed by {act.key_id}"
            )
    if not is_older:
        _report_unsigned(unsigned_ids, report)


def _is_signed(public_key: str, message_of: Callable[[str], bytes], stored_hash: str, signature: str) -> bool:
    try:
        return verify(public_key, message_of(stored_hash), signature)
    except ValueError:  # what is stored is no hash
        return False


def _report_unsigned(act_ids: Iterable[int], report: VerificationReport) -> None:
    for act_id in act_ids:
        report.add(None, None, "unsigned_act", f"act {act_id} of the staff's log has no signature")


@dataclass(eq=False, slots=True)
class EntryCheck:
    """One pass over the signatures of an account's entries.

    Attributes:
        account_id: Account.
        public_keys: Published signing keys by id.
        begun: Numbers and hashes of its entries that were signed with all that came before; None if the ledger is of
            an older version and nothing is signed yet.
        report: Report of what is wrong.
    """

    account_id: str
    public_keys: Mapping[str, str]
    begun: Set[tuple[int, str]] | None
    report: VerificationReport
    _unsigned_seq: int | None = None

    def take(self, entry: LedgerEntry, stored_hash: str, signature: str | None) -> None:
        """Check the next entry."""
        if signature is None:
            self._unsigned_seq = self._unsigned_seq or entry.seq
            return
        if self._unsigned_seq is not None and (entry.seq, stored_hash) in (self.begun or ()):
            self.report.unsigned_before[self.account_id] = entry.seq
            self._unsigned_seq = None
        self._report_unsigned()
        public_key = self.public_keys.get(entry.signing_key_id)
        if public_key is not None and not _is_signed(public_key, receipt_message, stored_hash, signature):
            self.report.add(self.account_id, entry.seq, "bad_signature", f"not signed by {entry.signing_key_id}")

    def end(self) -> None:
        """Check what came after the last signed entry."""
        if self.begun is None and self._unsigned_seq is not None:
            self.report.unsigned_before[self.account_id] = None
        else:
            self._report_unsigned()

    def _report_unsigned(self) -> None:
        if self._unsigned_seq is not None:
            detail = "made by other means than this vendor's server and commands, or by those of an older version"
            self.report.add(self.account_id, self._unsigned_seq, "unsigned_entry", detail)
            self._unsigned_seq = None
