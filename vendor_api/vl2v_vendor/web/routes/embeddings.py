"""Images and texts in, unit vectors out; and paid vectors again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from vl2v_contract.identity import Modality
from vl2v_contract.vectors import Dtype
from vl2v_contract.wire import headers
from vl2v_contract.wire.embeddings import (
    EmbeddingsResponse,
    Encoding,
    ImagesRequest,
    ReplayRequest,
    RequestOptions,
    TextsRequest,
)
from vl2v_vendor.service.outcomes import EmbedOutcome
from vl2v_vendor.service.sale import EmbedRequest
from vl2v_vendor.web.answers import render_answer
from vl2v_vendor.web.bodies import read_images, read_json
from vl2v_vendor.web.dependencies import EmbedCaller, MetricsOf, RequestId, ServicesOf
from vl2v_vendor.web.errors import AllItemsFailed
from vl2v_vendor.web.openapi import SALE_STATUSES, json_body, problems

IMAGES_PATH = "/v1/embeddings/images"
TEXTS_PATH = "/v1/embeddings/texts"
REPLAY_PATH = "/v1/embeddings/replay"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=headers.IDEMPOTENCY_KEY,
        description="A name for the request, 1 to 255 characters: repeated under it, nothing is billed or done twice. "
        "It names the items that have no `item_key`; another content under the same name is that item's own "
        "`item_key_mismatch`, billed nothing. With neither, every request is a new purchase.",
    ),
]

router = APIRouter(tags=["embeddings"])

_IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **json_body(ImagesRequest)["requestBody"]["content"],
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "options": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": "#/components/schemas/RequestOptions"},
                        },
                    },
                },
            },
        },
    }
}


@router.post(
    IMAGES_PATH,
    response_model=EmbeddingsResponse,
    responses=problems(*SALE_STATUSES),
    openapi_extra=_IMAGES_BODY,
    summary="Embed images",
)
async def embed_images(
    request: Request,
    caller: EmbedCaller,
    services: ServicesOf,
    metrics: MetricsOf,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sell one vector per image; each item ends as a vector or as an error of its own."""
    body = await read_images(request)
    services.embed.check_model(body.options.model)
    items = await services.preparation.prepare_images(body.sources)
    outcome = await services.embed.embed(
        caller,
        EmbedRequest(
            request_id=request_id,
            endpoint=IMAGES_PATH,
            modality="image",
            items=items,
            item_keys=body.item_keys,
            idempotency_key=idempotency_key,
            **_terms(body.options),
        ),
    )
    _observe(metrics, "image", outcome)
    return _answer(outcome, request_id, body.options.encoding, body.options.dtype)


@router.post(
    TEXTS_PATH,
    response_model=EmbeddingsResponse,
    responses=problems(*SALE_STATUSES),
    openapi_extra=json_body(TextsRequest),
    summary="Embed texts",
)
async def embed_texts(
    request: Request,
    caller: EmbedCaller,
    services: ServicesOf,
    metrics: MetricsOf,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sell one vector per text; each item ends as a vector or as an error of its own."""
    body = await read_json(request, TextsRequest)
    services.embed.check_model(body.model)
    items = await services.preparation.prepare_texts([item.text for item in body.items], truncate=body.truncate)
    outcome = await services.embed.embed(
        caller,
        EmbedRequest(
            request_id=request_id,
            endpoint=TEXTS_PATH,
            modality="text",
            items=items,
            truncate=body.truncate,
            item_keys=[item.item_key for item in body.items],
            idempotency_key=idempotency_key,
            **_terms(body),
        ),
    )
    _observe(metrics, "text", outcome)
    return _answer(outcome, request_id, body.encoding, body.dtype)


@router.post(
    REPLAY_PATH,
    response_model=EmbeddingsResponse,
    responses=problems(401, 403, 413, 415, 422, 503),
    openapi_extra=json_body(ReplayRequest),
    summary="Fetch paid vectors again",
)
async def replay(request: Request, caller: EmbedCaller, services: ServicesOf, request_id: RequestId) -> Response:
    """Deliver what this account has paid for, free, while it is kept."""
    body = await read_json(request, ReplayRequest)
    services.preparation.check_count(len(body.item_keys))
    outcome = await services.replay.replay(caller, body.item_keys)
    return _answer(outcome, request_id, body.encoding, body.dtype)


def _terms(options: ImagesRequest | RequestOptions | TextsRequest) -> dict[str, Any]:
    """What a client agrees to pay for, as every form of request names it."""
    return {
        "model": options.model,
        "price_id": options.price_id,
        "max_charge_micro": options.max_charge_micro,
        "allow_partial": options.allow_partial,
    }


def _observe(metrics: MetricsOf, modality: Modality, outcome: EmbedOutcome) -> None:
    metrics.observe_sale(modality, billed=outcome.billed_units, free=outcome.free_units, failed=len(outcome.failures))


def _answer(outcome: EmbedOutcome, request_id: str, encoding: Encoding, dtype: Dtype) -> Response:
    if len(outcome.failures) == len(outcome.items):
        raise AllItemsFailed(outcome.failures)
    answer = render_answer(outcome, request_id=request_id, encoding=encoding, dtype=dtype)
    budgets = outcome.budgets
    tighter = min(filter(None, (budgets.account, budgets.key)), key=lambda budget: budget.remaining_units)
    sent = {
        headers.BUDGET_LIMIT: str(tighter.limit_units),
        headers.BUDGET_REMAINING: str(tighter.remaining_units),
    }
    if outcome.free_units and not outcome.billed_units:
        sent[headers.IDEMPOTENT_REPLAYED] = "true"
    return Response(answer.model_dump_json(), headers=sent, media_type="application/json")
