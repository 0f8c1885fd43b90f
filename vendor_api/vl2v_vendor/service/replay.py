"""Paid vectors again, free, by their item keys alone."""

from __future__ import annotations

from collections.abc import Sequence

from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.encoder import Encoder
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import PaidItem
from vl2v_vendor.domain.ports import Ledger, Signer
from vl2v_vendor.service.naming import check_item_key, is_item_key
from vl2v_vendor.service.outcomes import EmbedOutcome, ItemOutcome, Verdict
from vl2v_vendor.service.payments import find_payments, with_payments
from vl2v_vendor.service.request_facts import note
from vl2v_vendor.service.sale import recall
from vl2v_vendor.service.stage_clock import timed


class ReplayService:
    """Delivers what an account has paid for, while it is kept; the model is not asked."""

    def __init__(self, ledger: Ledger, signer: Signer, encoder: Encoder) -> None:
        self._ledger = ledger
        self._signer = signer
        self._encoder = encoder

    async def replay(self, caller: ApiKey, item_keys: Sequence[str]) -> EmbedOutcome:
        """Look the item keys up; each ends as its paid vector or as an error of its own.

        An answer holds the vectors of one model: that of the first item found, whatever is on sale now.
        """
        account_id = caller.account_id
        with timed("commit"):
            paid = await self._ledger.find_paid(
                account_id, [key for key in dict.fromkeys(item_keys) if is_item_key(key)]
            )
            found = next((paid[key] for key in item_keys if key in paid and paid[key].vector is not None), None)
            info = self._encoder.info
            model_id, dimension = info.id, info.embedding_dim
            if found is not None and found.vector is not None:
                model_id, dimension = found.model_id, len(found.vector)
            outcome = EmbedOutcome(
                model_id=model_id,
                embedding_dim=dimension,
                items=tuple(ItemOutcome(key, _verdict(key, paid.get(key), model_id)) for key in item_keys),
                receipt=None,
                price=await self._ledger.price(info.id, "image"),
                budgets=await self._ledger.budgets(account_id, caller.id),
            )
            note(free_units=outcome.free_units, failed_items=len(outcome.failures))
            payments = await find_payments(account_id, outcome.earlier_seqs, self._ledger, self._signer)
            return with_payments(outcome, payments)


def _verdict(item_key: str, item: PaidItem | None, model_id: str) -> Verdict:
    try:
        check_item_key(item_key)
    except ItemFailure as failure:
        return failure
    if item is None:
        return ItemFailure("unknown_item", "this account has not paid for this item key; send the item itself")
    if item.vector is not None and item.model_id != model_id:
        return ItemFailure(
            "unknown_model", f"paid with model `{item.model_id}`, and this answer is for `{model_id}`; ask for it apart"
        )
    return recall(item)
