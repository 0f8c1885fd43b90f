"""From outcomes to what is sent: the contract's messages, in the form that the client asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from fastapi.responses import Response

from vl2v_contract.vectors import Dtype, to_base64
from vl2v_contract.wire import billing, embeddings, headers
from vl2v_contract.wire.errors import ErrorCode, ItemError
from vl2v_contract.wire.framed import pack_answer
from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.service.outcomes import Delivered, EmbedOutcome, ItemOutcome
from vl2v_vendor.service.stage_clock import timed
from vl2v_vendor.web.accept import preference
from vl2v_vendor.web.errors import AllItemsFailed

ANSWER_FORMS: Final = (headers.JSON, headers.OCTET_STREAM)
"""Media types in which vectors are delivered."""

_NUMBERS_PER_RECORD: Final = 32
"""An item of an earlier purchase takes as long to put into words as so many numbers."""

_MAX_NUMBERS_ON_THE_LOOP: Final = 2**16
"""More are put into words by a thread, so that no other request waits for it."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How vectors are to be sent."""

    encoding: embeddings.Encoding
    dtype: Dtype


def choose_form(encoding: embeddings.Encoding | None, dtype: Dtype, accept: str | None) -> AnswerForm:
    """The form that a request asks for: by `encoding`, or by its `Accept` header if that is absent."""
    if encoding is None:
        raw, json = (preference(accept, media_type) for media_type in (headers.OCTET_STREAM, headers.JSON))
        encoding = "raw" if raw > 0 and raw >= json else "base64"
    return AnswerForm(encoding, dtype)


async def answer_sale(outcome: EmbedOutcome, request_id: str, form: AnswerForm) -> Response:
    """The answer to a request for embeddings.

    Raises:
        AllItemsFailed: there is nothing to deliver.
    """
    if len(outcome.failures) == len(outcome.items):
        raise AllItemsFailed(outcome.failures)
    with timed("encode"):
        if is_large(outcome):
            body = await asyncio.to_thread(build_answer, outcome, request_id, form)
        else:
            body = build_answer(outcome, request_id, form)
    media_type = headers.OCTET_STREAM if form.encoding == "raw" else headers.JSON
    return Response(body, headers=sale_headers(outcome), media_type=media_type)


def is_large(outcome: EmbedOutcome) -> bool:
    """Whether an answer takes so long to put into words that a thread should do it."""
    shown = sum(len(paid.items) for paid in outcome.paid_by)
    return len(outcome.items) * outcome.embedding_dim + _NUMBERS_PER_RECORD * shown > _MAX_NUMBERS_ON_THE_LOOP


def build_answer(outcome: EmbedOutcome, request_id: str, form: AnswerForm) -> bytes:
    """The body: JSON, or a frame if the form is raw."""
    message = _render(outcome, request_id, form)
    if form.encoding != "raw":
        return message.model_dump_json().encode()
    vectors = [item.verdict.vector for item in outcome.items if isinstance(item.verdict, Delivered)]
    return pack_answer(message, vectors)


def sale_headers(outcome: EmbedOutcome) -> dict[str, str]:
    """What an answer says outside its body: the tighter budget, what was billed, and whether it is a repetition."""
    budgets = outcome.budgets
    tighter = min(filter(None, (budgets.account, budgets.key)), key=lambda budget: budget.remaining_units)
    sent = {
        headers.BUDGET_LIMIT: str(tighter.limit_units),
        headers.BUDGET_REMAINING: str(tighter.remaining_units),
        headers.BILLED_UNITS: str(outcome.billed_units),
    }
    if outcome.receipt is not None:
        sent[headers.RECEIPT_SEQ] = str(outcome.receipt.entry.seq)
    if outcome.free_units and not outcome.billed_units:
        sent[headers.IDEMPOTENT_REPLAYED] = "true"
    return sent


def _render(outcome: EmbedOutcome, request_id: str, form: AnswerForm) -> embeddings.EmbeddingsResponse:
    price = outcome.price
    billed_units = outcome.billed_units
    return embeddings.EmbeddingsResponse(
        request_id=request_id,
        model=outcome.model_id,
        embedding_dim=outcome.embedding_dim,
        encoding=form.encoding,
        dtype=form.dtype,
        data=[_render_item(index, item, form) for index, item in enumerate(outcome.items)],
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


def _render_item(index: int, item: ItemOutcome, form: AnswerForm) -> embeddings.ItemResult:
    # What an item does not have is not set, so that the head of a frame leaves it out.
    known: dict[str, Any] = {"index": index, "item_key": item.item_key}
    if item.tokens is not None:
        known |= {"tokens": item.tokens, "truncated": item.truncated}
    verdict = item.verdict
    if not isinstance(verdict, Delivered):
        error = ItemError(code=ErrorCode(verdict.code), detail=verdict.detail)
        return embeddings.ItemResult(**known, status="failed", error=error)
    if form.encoding != "raw":
        known["embedding"] = _render_vector(verdict.vector, form)
    note = verdict.recompute
    if note is not None:
        known["recompute"] = embeddings.SignedRecomputeNote(
            note=embeddings.RecomputeNote.model_validate(note.note), signature=note.signature
        )
    return embeddings.ItemResult(**known, status=verdict.status, result_sha=verdict.result_sha, seq=verdict.seq)


def _render_vector(vector: Vector, form: AnswerForm) -> str | list[float]:
    if form.encoding == "base64":
        return to_base64(vector, form.dtype)
    numbers: list[float] = vector.astype(form.dtype).tolist()
    return numbers


def _render_budget(budgets: Budgets) -> embeddings.BudgetState:
    key = budgets.key
    return embeddings.BudgetState(
        limit_units=budgets.account.limit_units,
        remaining_units=budgets.account.remaining_units,
        key_limit_units=key.limit_units if key is not None else None,
        key_remaining_units=key.remaining_units if key is not None else None,
    )
