"""From outcomes to the contract's messages."""

from __future__ import annotations

from typing import Any

from vl2v_contract.vectors import Dtype, to_base64
from vl2v_contract.wire import billing, embeddings
from vl2v_contract.wire.errors import ErrorCode, ItemError
from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.service.outcomes import Delivered, EmbedOutcome, ItemOutcome


def render_answer(
    outcome: EmbedOutcome, *, request_id: str, encoding: embeddings.Encoding, dtype: Dtype
) -> embeddings.EmbeddingsResponse:
    """The whole answer to an embeddings request."""
    price = outcome.price
    billed_units = outcome.billed_units
    return embeddings.EmbeddingsResponse(
        request_id=request_id,
        model=outcome.model_id,
        embedding_dim=outcome.embedding_dim,
        encoding=encoding,
        dtype=dtype,
        data=[_render_item(index, item, encoding, dtype) for index, item in enumerate(outcome.items)],
        usage=embeddings.Usage(
            billed_units=billed_units,
            replayed_units=outcome.free_units,
            failed_items=len(outcome.failures),
            unit_price_micro=price.unit_price_micro,
            amount_micro=billed_units * price.unit_price_micro,
            currency=price.currency,
            price_id=price.id if billed_units else None,
        ),
        budget=_render_budget(outcome.budgets),
        receipt=None
        if outcome.receipt is None
        else billing.Receipt.model_validate(outcome.receipt, from_attributes=True),
        paid_by=[billing.RequestRecord.model_validate(paid, from_attributes=True) for paid in outcome.paid_by],
    )


def _render_item(index: int, item: ItemOutcome, encoding: embeddings.Encoding, dtype: Dtype) -> embeddings.ItemResult:
    shared: dict[str, Any] = {
        "index": index,
        "item_key": item.item_key,
        "tokens": item.tokens,
        "truncated": item.truncated,
    }
    verdict = item.verdict
    if not isinstance(verdict, Delivered):
        error = ItemError(code=ErrorCode(verdict.code), detail=verdict.detail)
        return embeddings.ItemResult(**shared, status="failed", error=error)
    note = verdict.recompute
    return embeddings.ItemResult(
        **shared,
        status=verdict.status,
        embedding=_render_vector(verdict.vector, encoding, dtype),
        result_sha=verdict.result_sha,
        seq=verdict.seq,
        recompute=None
        if note is None
        else embeddings.SignedRecomputeNote(
            note=embeddings.RecomputeNote.model_validate(note.note), signature=note.signature
        ),
    )


def _render_vector(vector: Vector, encoding: embeddings.Encoding, dtype: Dtype) -> str | list[float]:
    if encoding == "base64":
        return to_base64(vector, dtype)
    numbers: list[float] = vector.astype(dtype).tolist()
    return numbers


def _render_budget(budgets: Budgets) -> embeddings.BudgetState:
    key = budgets.key
    return embeddings.BudgetState(
        limit_units=budgets.account.limit_units,
        remaining_units=budgets.account.remaining_units,
        key_limit_units=key.limit_units if key is not None else None,
        key_remaining_units=key.remaining_units if key is not None else None,
    )
