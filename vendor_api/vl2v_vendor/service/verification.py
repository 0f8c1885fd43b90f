"""Checking the whole ledger against itself: every chain recomputed, every total summed up again.

The checks are the invariants I1 to I6: budgets within their limits and equal to the sums of entries; amounts from
units and prices; one charge per item; sequence numbers without gaps, but for those that a `restored` entry explains;
hashes that recompute, link and end at the head. Beside them: every signing key is vouched for by the one before, and
every entry that the staff made is in their log, as every act of theirs is in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence

from vl2v_contract.records import PublicKey
from vl2v_contract.signatures import successor_message, verify
from vl2v_vendor.service.account_check import AccountCheck
from vl2v_vendor.service.ledger_books import MAX_PROBLEMS, LedgerScan, VendorBooks, VerificationReport

__all__ = ["MAX_PROBLEMS", "VerificationReport", "verify_ledger"]


def verify_ledger(scan: LedgerScan) -> VerificationReport:
    """Check every account; memory does not grow with the number of charges and items."""
    report = VerificationReport()
    keys = scan.published_keys()
    _check_keys(keys, report)
    vendor = VendorBooks(scan.ledger_id(), frozenset(key.key_id for key in keys), scan.prices())
    for books in scan.accounts():
        report.accounts += 1
        AccountCheck(books, vendor, report).run(scan.entries(books.account_id), scan.items(books.account_id))
    return report


def _check_keys(keys: Sequence[PublicKey], report: VerificationReport) -> None:
    """Each key but the first is signed by the one before, which retired when it came."""
    for before, key in zip([None, *keys], keys, strict=False):
        if before is None:
            if key.predecessor_id is not None:
                report.add(None, None, "key_chain_break", f"the first signing key {key.key_id} names a predecessor")
            continue
        message = successor_message(key.public_key)
        if key.predecessor_id != before.key_id or not verify(
            before.public_key, message, key.predecessor_signature or ""
        ):
            report.add(None, None, "key_chain_break", f"signing key {key.key_id} is not signed by the one before")
        if before.retired_at != key.created_at:
            report.add(None, None, "key_chain_break", f"signing key {before.key_id} did not retire when replaced")
