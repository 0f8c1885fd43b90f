"""A sale as an answer in OpenAI's shape."""

from __future__ import annotations

import asyncio

from fastapi.responses import Response

from vl2v_contract.vectors import to_base64
from vl2v_contract.wire.headers import JSON
from vl2v_contract.wire.openai import OpenAIEmbedding, OpenAIResponse, OpenAIUsage
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.service.outcomes import Delivered, EmbedOutcome
from vl2v_vendor.service.stage_clock import timed
from vl2v_vendor.web.answers import is_large, sale_headers


async def answer_openai(outcome: EmbedOutcome, *, as_base64: bool) -> Response:
    """The answer to a request whose every item was delivered."""
    with timed("encode"):
        if is_large(outcome):
            body = await asyncio.to_thread(_build, outcome, as_base64)
        else:
            body = _build(outcome, as_base64)
    return Response(body, headers=sale_headers(outcome), media_type=JSON)


def _build(outcome: EmbedOutcome, as_base64: bool) -> str:
    tokens = sum(item.tokens or 0 for item in outcome.items)
    vectors = [item.verdict.vector for item in outcome.items if isinstance(item.verdict, Delivered)]
    return OpenAIResponse(
        data=[
            OpenAIEmbedding(index=index, embedding=_render(vector, as_base64)) for index, vector in enumerate(vectors)
        ],
        model=outcome.model_id,
        usage=OpenAIUsage(prompt_tokens=tokens, total_tokens=tokens),
    ).model_dump_json()


def _render(vector: Vector, as_base64: bool) -> str | list[float]:
    if as_base64:
        return to_base64(vector, "float32")
    numbers: list[float] = vector.tolist()
    return numbers
