"""OpenAI's embeddings API, over the same service: what works with its clients works here."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from vl2v_contract.identity import Modality
from vl2v_contract.wire.openai import OpenAIRequest, OpenAIResponse
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.service.lanes import EncodingLanes
from vl2v_vendor.service.sale import EmbedRequest
from vl2v_vendor.web.bodies import read_body, require_json
from vl2v_vendor.web.dependencies import EmbedCaller, MetricsOf, RequestId, ServicesOf
from vl2v_vendor.web.openai_answers import answer_openai
from vl2v_vendor.web.openai_errors import OpenAIRoute
from vl2v_vendor.web.openai_inputs import InvalidField, inputs_of, parse_openai
from vl2v_vendor.web.openapi import OPENAI_STATUSES, json_body, openai_problems
from vl2v_vendor.web.routes.embeddings import IdempotencyKey, admit, observe

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
    request: Request,
    caller: EmbedCaller,
    services: ServicesOf,
    metrics: MetricsOf,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sell one vector per text or image; if an item fails, the request is refused and nothing is billed."""
    require_json(request)
    _check_any_room(services.lanes, caller.id)
    body = await read_body(request, parse_openai)
    width = services.embed.check_model(body.model).embedding_dim
    if body.dimensions not in (None, width):
        raise InvalidField("dimensions", f"vectors of `{body.model}` have {width} dimensions, no more and no fewer")
    inputs = inputs_of(body)
    modality: Modality = "text" if inputs.texts else "image"
    admit(services, modality, len(inputs.texts or inputs.images), caller.id)
    if inputs.texts:
        items = await services.preparation.prepare_texts(inputs.texts, truncate=False)
    else:
        items = await services.preparation.prepare_images(inputs.images)
    outcome = await services.embed.embed(
        caller,
        EmbedRequest(
            request_id=request_id,
            endpoint=PATH,
            modality=modality,
            items=items,
            model=body.model,
            idempotency_key=idempotency_key,
            all_or_nothing=True,
        ),
    )
    observe(metrics, modality, outcome)
    return await answer_openai(outcome, as_base64=body.encoding_format == "base64")


def _check_any_room(lanes: EncodingLanes, key_id: str) -> None:
    """Refuse at once what would be refused whether it is of texts or of images; raises Overloaded."""
    try:
        lanes.check_room("text", key=key_id)
    except Overloaded:
        lanes.check_room("image", key=key_id)
