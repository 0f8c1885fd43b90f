"""Images and texts in, unit vectors out, in the form that the client asked for; and paid vectors again."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from fastapi import APIRouter, Request
from fastapi.responses import Response
from python_multipart.multipart import parse_options_header

from vl2v_contract.identity import Modality
from vl2v_contract.vectors import Dtype, to_base64
from vl2v_contract.wire import embeddings, headers
from vl2v_contract.wire.embeddings import EmbeddingsResponse, ImagesRequest, ReplayRequest, RequestOptions, TextsRequest
from vl2v_contract.wire.errors import ErrorCode, ItemError
from vl2v_contract.wire.frames import pack_answer
from vl2v_vendor.observe.request_trace import timed
from vl2v_vendor.service.preparation import ItemSource
from vl2v_vendor.service.sale import Sale, SaleItem, SaleRequest
from vl2v_vendor.web.bodies import read_images, read_json
from vl2v_vendor.web.declarations import (
    FRAMED_ANSWER,
    SALE_STATUSES,
    EmbedCaller,
    IdempotencyKey,
    ServicesOf,
    images_body,
    json_body,
    problems,
)
from vl2v_vendor.web.problems import AllItemsFailed

IMAGES_PATH = "/v1/embeddings/images"
TEXTS_PATH = "/v1/embeddings/texts"

_TERMS: Final = {"model", "price_id", "max_charge_micro", "allow_partial"}
"""What a client agrees to pay for, as every form of request names it."""

_Options: TypeAlias = ImagesRequest | RequestOptions | TextsRequest | ReplayRequest

ANSWER_FORMS: Final = (headers.JSON, headers.OCTET_STREAM)
"""Media types in which vectors are delivered."""

_NUMBERS_PER_RECORD: Final = 32
"""An item of an earlier purchase takes as long to put into words as so many numbers."""

_MAX_NUMBERS_ON_THE_LOOP: Final = 2**16
"""More are put into words by a thread, so that no other request waits for it."""

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
    options, sources, item_keys = await read_images(request)
    order = _order(request, "image", options, sources, item_keys, idempotency_key)
    return await answer_sale(await services.seller.sell(caller, order), request, options)


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
    "/v1/embeddings/replay",
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


def accepted(accept: str | None) -> dict[str, float]:
    """Return the weights, 0 to 1, that an `Accept` header gives to media types by their full names (RFC 9110, 12.5.1).

    Ranges such as `*/*` name no media type of ours: who sends them takes whatever is usual.
    """
    weights: dict[str, float] = {}
    for part in (accept or "").split(","):
        name, parameters = parse_options_header(part)
        try:
            weight = min(max(float(parameters.get(b"q", b"1")), 0.0), 1.0)
        except ValueError:
            weight = 0.0
        weights.setdefault(name.decode("latin-1"), weight)
    return weights


async def answer_sale(sale: Sale, request: Request, options: _Options) -> Response:
    """Answer a request for embeddings in the form that its options and headers ask for.

    Raises:
        AllItemsFailed: There is nothing to deliver.
    """
    if len(failures := sale.failures) == len(sale.items):
        raise AllItemsFailed(failures)
    encoding = options.encoding
    if encoding is None:
        weights = accepted(request.headers.get("accept"))
        raw = weights.get(headers.OCTET_STREAM, 0.0)
        encoding = "raw" if raw > 0 and raw >= weights.get(headers.JSON, 0.0) else "base64"
    media_type = headers.OCTET_STREAM if encoding == "raw" else headers.JSON
    build = partial(build_answer, sale, request.state.request_id, encoding, options.dtype)
    return await respond(sale, build, media_type)


async def respond(sale: Sale, build: Callable[[], bytes], media_type: str) -> Response:
    """Build a sale's answer, its body in a thread if it is so large that other requests would wait for it.

    The headers tell the tighter budget, what was billed, and whether the request is a repetition.
    """
    shown = sum(len(paid.items) for paid in sale.paid_by)
    numbers = len(sale.items) * sale.embedding_dim + _NUMBERS_PER_RECORD * shown
    with timed("encode"):
        body = await asyncio.to_thread(build) if numbers > _MAX_NUMBERS_ON_THE_LOOP else build()
    _, tighter = sale.budgets.tighter
    sent = {
        headers.BUDGET_LIMIT: str(tighter.limit_units),
        headers.BUDGET_REMAINING: str(tighter.remaining_units),
        headers.BILLED_UNITS: str(sale.billed_units),
    }
    if sale.receipt is not None:
        sent[headers.RECEIPT_SEQ] = str(sale.receipt.entry.seq)
    if sale.free_units and not sale.billed_units:
        sent[headers.IDEMPOTENT_REPLAYED] = "true"
    return Response(body, headers=sent, media_type=media_type)


def build_answer(sale: Sale, request_id: str, encoding: embeddings.Encoding, dtype: Dtype) -> bytes:
    """Build the body: JSON, or a frame if the encoding is raw."""
    price, account, key, billed_units = sale.price, sale.budgets.account, sale.budgets.key, sale.billed_units
    message = EmbeddingsResponse(
        request_id=request_id,
        model=sale.model_id,
        embedding_dim=sale.embedding_dim,
        encoding=encoding,
        dtype=dtype,
        data=[_render_item(index, item, encoding, dtype) for index, item in enumerate(sale.items)],
        usage=embeddings.Usage(
            billed_units=billed_units,
            replayed_units=sale.free_units,
            failed_items=len(sale.failures),
            unit_price_micro=price.unit_price_micro,
            amount_micro=billed_units * price.unit_price_micro,
            currency=price.currency,
            price_id=price.id if billed_units else None,
        ),
        budget=embeddings.BudgetState(
            limit_units=account.limit_units,
            remaining_units=account.remaining_units,
            key_limit_units=key and key.limit_units,
            key_remaining_units=key and key.remaining_units,
        ),
        receipt=sale.receipt,
        paid_by=list(sale.paid_by),
    )
    if encoding != "raw":
        return message.model_dump_json().encode()
    return pack_answer(message, [item.vector for item in sale.items if item.vector is not None])


def _render_item(index: int, item: SaleItem, encoding: embeddings.Encoding, dtype: Dtype) -> embeddings.ItemResult:
    # What an item does not have is not set, so that the head of a frame leaves it out.
    known: dict[str, Any] = {"index": index, "item_key": item.item_key}
    if item.prepared is not None and item.prepared.tokens is not None:
        known |= {"tokens": item.prepared.tokens, "truncated": item.prepared.truncated}
    if item.failure is not None:
        error = ItemError(code=ErrorCode(item.failure.code), detail=item.failure.detail)
        return embeddings.ItemResult(**known, status="failed", error=error)
    if encoding != "raw" and item.vector is not None:
        vector = item.vector
        known["embedding"] = to_base64(vector, dtype) if encoding == "base64" else vector.astype(dtype).tolist()
    if item.recompute is not None:
        known["recompute"] = item.recompute
    return embeddings.ItemResult(**known, status=item.status, result_sha=item.result_sha, seq=item.seq)
