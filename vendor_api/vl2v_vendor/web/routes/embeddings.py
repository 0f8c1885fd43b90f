"""Images and texts in, unit vectors out; and paid vectors again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

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
from vl2v_vendor.service.preparation import ItemSource
from vl2v_vendor.service.sale import SaleRequest
from vl2v_vendor.web.answers import answer_sale
from vl2v_vendor.web.bodies import read_images, read_json
from vl2v_vendor.web.dependencies import EmbedCaller, ServicesOf
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

_TERMS: Final = {"model", "price_id", "max_charge_micro", "allow_partial"}
"""What a client agrees to pay for, as every form of request names it."""

router = APIRouter(tags=["embeddings"])


@router.post(
    IMAGES_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(*SALE_STATUSES)},
    openapi_extra=images_body(),
    summary="Embed images",
)
async def embed_images(
    request: Request, caller: EmbedCaller, services: ServicesOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Sell one vector per image; each item ends as a vector or as an error of its own."""
    body = await read_images(request)
    order = _order(request, "image", body.options, body.sources, body.item_keys, idempotency_key)
    return await answer_sale(await services.seller.sell(caller, order), request, body.options)


@router.post(
    TEXTS_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(*SALE_STATUSES)},
    openapi_extra=json_body(TextsRequest),
    summary="Embed texts",
)
async def embed_texts(
    request: Request, caller: EmbedCaller, services: ServicesOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Sell one vector per text; each item ends as a vector or as an error of its own."""
    body = await read_json(request, TextsRequest)
    texts, item_keys = [item.text for item in body.items], [item.item_key for item in body.items]
    order = _order(request, "text", body, texts, item_keys, idempotency_key)
    return await answer_sale(await services.seller.sell(caller, order), request, body)


@router.post(
    REPLAY_PATH,
    response_model=EmbeddingsResponse,
    responses={**FRAMED_ANSWER, **problems(401, 403, 413, 415, 422, 503)},
    openapi_extra=json_body(ReplayRequest),
    summary="Fetch paid vectors again",
)
async def replay(request: Request, caller: EmbedCaller, services: ServicesOf) -> Response:
    """Deliver what this account has paid for, free, while it is kept."""
    body = await read_json(request, ReplayRequest)
    return await answer_sale(await services.seller.replay(caller, body.item_keys), request, body)


def _order(
    request: Request,
    modality: Modality,
    options: ImagesRequest | RequestOptions | TextsRequest,
    sources: Sequence[ItemSource],
    item_keys: Sequence[str | None] | None,
    idempotency_key: str | None,
) -> SaleRequest:
    return SaleRequest(
        request_id=request.state.request_id,
        endpoint=IMAGES_PATH if modality == "image" else TEXTS_PATH,
        modality=modality,
        sources=sources,
        item_keys=item_keys,
        idempotency_key=idempotency_key,
        truncate=isinstance(options, TextsRequest) and options.truncate,
        **options.model_dump(include=_TERMS),
    )
