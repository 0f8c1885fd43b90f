"""OpenAI's language for the one path that speaks it: what a request asks for, its answer, and its refusals."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from vl2v_contract.identity import Modality
from vl2v_contract.vectors import to_base64
from vl2v_contract.wire import openai_format as wire
from vl2v_contract.wire.errors import ErrorCode
from vl2v_contract.wire.headers import JSON
from vl2v_vendor.domain.errors import InvalidRequest, ItemsFailed, Overloaded, UnknownModel
from vl2v_vendor.observe.request_trace import note
from vl2v_vendor.service.sale import Sale, SaleRequest
from vl2v_vendor.web.bodies import check_values, read_body, require_json
from vl2v_vendor.web.declarations import OPENAI_STATUSES, EmbedCaller, IdempotencyKey, ServicesOf, json_body, problems
from vl2v_vendor.web.problems import describe_faults, make_problem, refusal_headers
from vl2v_vendor.web.routes.embeddings import respond

PATH = "/v1/embeddings"

_TYPES: Final = {
    ErrorCode.BUDGET_EXHAUSTED: "insufficient_quota",
    ErrorCode.RATE_LIMITED: "rate_limit_error",
    ErrorCode.FORBIDDEN: "permission_error",
}
_CODES: Final = {
    ErrorCode.UNAUTHENTICATED: "invalid_api_key",
    ErrorCode.UNKNOWN_MODEL: "model_not_found",
    ErrorCode.RATE_LIMITED: "rate_limit_exceeded",
}
"""OpenAI's own names, where it has one; else the code is ours."""

_log = logging.getLogger(__name__)


class InvalidField(InvalidRequest):
    """One field of the request is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def parse_openai(body: bytes) -> wire.OpenAIRequest:
    """Validate a JSON body.

    Raises:
        InvalidField: Names the first wrong field, repeats no input.
    """
    check_values(body)
    try:
        return wire.OpenAIRequest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0])[:40] if fault["loc"] else "body"
        raise InvalidField(field, wire.INPUT_FORMS if field == "input" else describe_faults([fault])) from None


def sources_of(request: wire.OpenAIRequest, width: int) -> tuple[Modality, Sequence[str]]:
    """Return the items of a request: texts, or images as base64.

    Raises:
        InvalidField: The model has another width than is asked for; or there are no items, items of both kinds, a URL,
            or a data URI that is not base64.
    """
    if request.dimensions not in (None, width):
        raise InvalidField("dimensions", f"vectors of `{request.model}` have {width} dimensions, no more and no fewer")
    try:
        return wire.read_input(request.input)
    except wire.InputFault as fault:
        raise InvalidField(fault.field, str(fault)) from None


def build_openai(sale: Sale, *, as_base64: bool) -> bytes:
    """Build the body of the answer to a request whose every item was delivered."""
    tokens = sum(item.prepared.tokens or 0 for item in sale.items if item.prepared is not None)
    answer = wire.OpenAIResponse(
        data=[
            wire.OpenAIEmbedding(index=index, embedding=to_base64(vector, "float32") if as_base64 else vector.tolist())
            for index, vector in enumerate(item.vector for item in sale.items if item.vector is not None)
        ],
        model=sale.model_id,
        usage=wire.OpenAIUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
    return answer.model_dump_json().encode()


class OpenAIRoute(APIRoute):
    """A route whose refusals, those of its dependencies included, have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler, so that every refusal is answered in OpenAI's shape."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                raise
            except Exception as error:
                return _refuse(error, request.state.request_id)

        return answer


def _refuse(error: Exception, request_id: str) -> Response:
    problem = make_problem(error, request_id)
    if problem.code is ErrorCode.INTERNAL:
        _log.error("request %s failed", request_id, exc_info=error)
    note(problem=problem.code.value)
    usual_type = "server_error" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    fault = wire.OpenAIFault(
        message=problem.detail,
        type=_TYPES.get(problem.code, usual_type),
        param=_param_of(error),
        code=_CODES.get(problem.code, problem.code.value),
    )
    return Response(
        wire.OpenAIProblem(error=fault).model_dump_json(),
        # OpenAI's clients know a malformed request as a 400.
        status_code=HTTPStatus.BAD_REQUEST if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY else problem.status,
        headers=refusal_headers(problem, error),
        media_type=JSON,
    )


def _param_of(error: Exception) -> str | None:
    if isinstance(error, InvalidField):
        return error.field
    if isinstance(error, ItemsFailed):
        return f"input[{next(iter(error.failures))}]"
    return "model" if isinstance(error, UnknownModel) else None


router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


@router.post(
    PATH,
    response_model=wire.OpenAIResponse,
    responses=problems(*OPENAI_STATUSES, as_openai=True),
    openapi_extra=json_body(wire.OpenAIRequest),
    summary="Embed texts or images in OpenAI's language",
)
async def create_embeddings(
    request: Request, caller: EmbedCaller, services: ServicesOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Sell one vector per text or image; if an item fails, the request is refused and nothing is billed."""
    require_json(request)
    try:  # what would be refused whether it is of texts or of images: the gate does not know which
        services.lanes["text"].check_room(1)
    except Overloaded:
        services.lanes["image"].check_room(1)
    body = await read_body(request, parse_openai)
    modality, sources = sources_of(body, services.seller.check_model(body.model).embedding_dim)
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
