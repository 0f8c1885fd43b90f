"""OpenAI's embeddings API, over the same service: what works with its clients works here."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from vl2v_contract.wire.headers import JSON
from vl2v_contract.wire.openai import OpenAIRequest, OpenAIResponse
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.service.sale import SaleRequest
from vl2v_vendor.web.answers import respond
from vl2v_vendor.web.bodies import read_body, require_json
from vl2v_vendor.web.dependencies import EmbedCaller, ServicesOf
from vl2v_vendor.web.openai_messages import OpenAIRoute, build_openai, check_dimensions, parse_openai, sources_of
from vl2v_vendor.web.openapi import OPENAI_STATUSES, json_body, openai_problems
from vl2v_vendor.web.routes.embeddings import IdempotencyKey

PATH = "/v1/embeddings"

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post(
    PATH,
    response_model=OpenAIResponse,
    responses=openai_problems(*OPENAI_STATUSES),
    openapi_extra=json_body(OpenAIRequest),
    summary="Embed texts or images in OpenAI's language",
)
async def create_embeddings(
    request: Request, caller: EmbedCaller, services: ServicesOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Sell one vector per text or image; if an item fails, the request is refused and nothing is billed."""
    require_json(request)
    _check_any_room(services.lanes)
    body = await read_body(request, parse_openai)
    check_dimensions(body, services.seller.check_model(body.model))
    modality, sources = sources_of(body)
    order = SaleRequest(
        request_id=request.state.request_id,
        endpoint=PATH,
        modality=modality,
        sources=sources,
        model=body.model,
        idempotency_key=idempotency_key,
        all_or_nothing=True,
    )
    sale = await services.seller.sell(caller, order)
    return await respond(sale, lambda: build_openai(sale, as_base64=body.encoding_format == "base64"), JSON)


def _check_any_room(lanes: EncodingLanes) -> None:
    """Refuse at once what would be refused whether it is of texts or of images: the gate does not know which."""
    try:
        lanes.check_room("text")
    except Overloaded:
        lanes.check_room("image")
