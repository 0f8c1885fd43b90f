"""The receipts of what was paid earlier, so that a free answer proves by itself who paid for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from vl2v_vendor.domain.ports import Ledger, Signer
from vl2v_vendor.service.audit import RequestRecord, sign_receipt
from vl2v_vendor.service.outcomes import EmbedOutcome

Payments = Mapping[int, RequestRecord]
"""The records of purchases, by `seq`."""


async def find_payments(account_id: str, seqs: Collection[int], ledger: Ledger, signer: Signer) -> Payments:
    """The records of an account's purchases; nothing is read if there are none.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    if not seqs:
        return {}
    posted = await ledger.find_entries(account_id, sorted(seqs))
    return {one.entry.seq: RequestRecord(sign_receipt(signer, one), one.items) for one in posted}


def with_payments(outcome: EmbedOutcome, payments: Payments) -> EmbedOutcome:
    """The outcome with the record of every earlier purchase that it replays."""
    return replace(outcome, paid_by=tuple(payments[seq] for seq in outcome.earlier_seqs))
