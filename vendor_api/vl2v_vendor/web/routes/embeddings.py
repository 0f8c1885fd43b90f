"""Images and texts in, unit vectors out; and paid vectors again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from vl2v_contract.identity import Modality
from vl2v_contract.wire import headers
from vl2v_contract.wire.embeddings import (
    EmbeddingsResponse,
    ImagesRequest,
    ReplayRequest,
    RequestOptions,
    TextsRequest,
)
from vl2v_vendor.service.outcomes import EmbedOutcome
from vl2v_vendor.service.sale import EmbedRequest
from vl2v_vendor.web.answers import AnswerForm, answer_sale, choose_form
from vl2v_vendor.web.bodies import read_images, read_json
from vl2v_vendor.web.dependencies import EmbedCaller, MetricsOf, RequestId, ServicesOf
from vl2v_vendor.web.openapi import FRAMED_ANSWER, SALE_STATUSES, images_body, json_body, problems

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


@router.post(
    IMAGES_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(*SALE_STATUSES)},
    openapi_extra=images_body(),
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
    services.lanes.check_room("image", key=caller.id)
    body = await read_images(request)
    services.embed.check_model(body.options.model)
    admit(services, "image", len(body.sources), caller.id)
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
    observe(metrics, "image", outcome)
    return await answer_sale(outcome, request_id, _form(request, body.options))


@router.post(
    TEXTS_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(*SALE_STATUSES)},
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
    services.lanes.check_room("text", key=caller.id)
    body = await read_json(request, TextsRequest)
    services.embed.check_model(body.model)
    admit(services, "text", len(body.items), caller.id)
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
    observe(metrics, "text", outcome)
    return await answer_sale(outcome, request_id, _form(request, body))


@router.post(
    REPLAY_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(401, 403, 413, 415, 422, 503)},
    openapi_extra=json_body(ReplayRequest),
    summary="Fetch paid vectors again",
)
async def replay(request: Request, caller: EmbedCaller, services: ServicesOf, request_id: RequestId) -> Response:
    """Deliver what this account has paid for, free, while it is kept."""
    body = await read_json(request, ReplayRequest)
    services.preparation.check_count(len(body.item_keys))
    outcome = await services.replay.replay(caller, body.item_keys)
    return await answer_sale(outcome, request_id, _form(request, body))


def admit(services: ServicesOf, modality: Modality, count: int, key_id: str) -> None:
    """Look again once the items are counted, before one of them takes the memory of a decoded image.

    Raises:
        TooManyItems: more than one request may have.
        Overloaded: the lane has no room for as many.
    """
    services.preparation.check_count(count)
    services.lanes.check_room(modality, count, key=key_id)


def _terms(options: ImagesRequest | RequestOptions | TextsRequest) -> dict[str, Any]:
    """What a client agrees to pay for, as every form of request names it."""
    return {
        "model": options.model,
        "price_id": options.price_id,
        "max_charge_micro": options.max_charge_micro,
        "allow_partial": options.allow_partial,
    }


def _form(request: Request, options: ImagesRequest | RequestOptions | TextsRequest | ReplayRequest) -> AnswerForm:
    return choose_form(options.encoding, options.dtype, request.headers.get("accept"))


def observe(metrics: MetricsOf, modality: Modality, outcome: EmbedOutcome) -> None:
    """Count what became of a sale's items."""
    metrics.observe_sale(modality, billed=outcome.billed_units, free=outcome.free_units, failed=len(outcome.failures))
