"""The receipts of what was paid earlier, so that a free answer proves by itself who paid for it."""

from __future__ import annotations

from dataclasses import replace

from vl2v_vendor.domain.ports import Ledger, Signer
from vl2v_vendor.service.audit import RequestRecord, sign_receipt
from vl2v_vendor.service.outcomes import EmbedOutcome


async def with_payments(outcome: EmbedOutcome, account_id: str, ledger: Ledger, signer: Signer) -> EmbedOutcome:
    """The outcome with the record of every earlier purchase that it replays; nothing is read if it replays none.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    seqs = outcome.earlier_seqs
    if not seqs:
        return outcome
    posted = await ledger.find_entries(account_id, seqs)
    return replace(outcome, paid_by=tuple(RequestRecord(sign_receipt(signer, entry), entry.items) for entry in posted))
