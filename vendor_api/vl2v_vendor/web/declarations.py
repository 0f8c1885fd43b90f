"""What routes declare: services, a caller with the right scope, usual parameters, and their bodies and problems.

Dependencies are coroutines, however little they do: FastAPI sends plain functions to a thread, which costs each half a
millisecond. Bodies are read by the handlers, so the OpenAPI document is told of them here.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from fastapi import Depends, FastAPI, Header, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vl2v_contract.identity import MAX_INTEGER
from vl2v_contract.wire import embeddings as wire
from vl2v_contract.wire import headers
from vl2v_contract.wire.admin import NewAccount, NewKey, NewPrice, NewRefund, NewTopUp
from vl2v_contract.wire.errors import Problem
from vl2v_contract.wire.frames import UploadHead
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, PROBLEM_JSON, RGB8_TENSOR
from vl2v_contract.wire.openai_format import OpenAIProblem, OpenAIRequest
from vl2v_vendor.domain.accounts import ApiKey, Scope
from vl2v_vendor.service.audit import MAX_PAGE_ENTRIES
from vl2v_vendor.service.services import Services

_bearer = HTTPBearer(auto_error=False, description="An API key of the vendor: `Bearer vl2v_...`.")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def services_of(request: Request) -> Services:
    """Return the services that the application was made with."""
    return cast("Services", request.app.state.services)


@dataclass(frozen=True)
class Requires:
    """An access policy: the caller's API key has `scope`. Checked before the body is read."""

    scope: Scope

    async def __call__(self, request: Request, credentials: Credentials) -> ApiKey:
        """Authenticate the caller."""
        secret = credentials.credentials if credentials is not None else None
        key = await (await services_of(request)).authenticator.authenticate(secret, self.scope)
        request.state.api_key_id, request.state.account_id = key.id, key.account_id
        return key


async def public() -> None:
    """Let everybody in: the access policy of public routes."""


ServicesOf = Annotated[Services, Depends(services_of)]
PUBLIC = Depends(public)
EmbedCaller = Annotated[ApiKey, Depends(Requires("embed"))]
BillingCaller = Annotated[ApiKey, Depends(Requires("billing"))]
ADMIN = Depends(Requires("admin"))
AdminCaller = Annotated[ApiKey, ADMIN]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=headers.IDEMPOTENCY_KEY,
        description="A name for the request, 1 to 255 characters: repeated under it, nothing is billed or done twice. "
        "It names the items that have no `item_key`; another content under the same name is that item's own "
        "`item_key_mismatch`, billed nothing. With neither, every request is a new purchase.",
    ),
]
AfterNumber = Annotated[int, Query(ge=0, le=MAX_INTEGER)]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE_ENTRIES)]

SALE_STATUSES: Final = (401, 402, 403, 404, 409, 413, 415, 422, 429, 503)
"""Everything but 200 and 500 that can become of a sale."""
OPENAI_STATUSES: Final = (400, 401, 402, 403, 404, 409, 413, 415, 429, 503)
"""The same where OpenAI's language is spoken."""

_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    wire.ImagesRequest,
    wire.RequestOptions,
    wire.TextsRequest,
    wire.ReplayRequest,
    UploadHead,
    OpenAIRequest,
    NewAccount,
    NewTopUp,
    NewRefund,
    NewKey,
    NewPrice,
    Problem,
    OpenAIProblem,
)
_REF_TEMPLATE: Final = "#/components/schemas/{model}"


_BINARY: Final = {"type": "string", "format": "binary"}

FRAMED_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The vectors; framed, if the request prefers that: the same message without `embedding`, then "
        "the raw vectors of the delivered items.",
        "content": {OCTET_STREAM: {"schema": _BINARY}},
    }
}
"""The second form of a successful answer."""


def json_body(message: type[BaseModel]) -> dict[str, Any]:
    """Describe a required JSON body that the handler reads itself, after the caller is known."""
    schema = {"$ref": _REF_TEMPLATE.format(model=message.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def images_body() -> dict[str, Any]:
    """Describe a required body of images in any of its forms."""
    form = {
        "type": "object",
        "required": ["images"],
        "properties": {
            "images": {"type": "array", "items": _BINARY},
            "options": {
                "type": "string",
                "contentMediaType": JSON,
                "contentSchema": {"$ref": _REF_TEMPLATE.format(model=wire.RequestOptions.__name__)},
            },
        },
    }
    content = {
        **json_body(wire.ImagesRequest)["requestBody"]["content"],
        MULTIPART: {"schema": form},
        OCTET_STREAM: {"schema": _BINARY | {"description": "A frame: `UploadHead`, then whole files."}},
        RGB8_TENSOR: {"schema": _BINARY | {"description": "A frame: `UploadHead`, then RGB8 at the input size."}},
    }
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int, as_openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """Describe problem answers by status, the internal error included; in our shape, or in OpenAI's."""
    message, media_type = (OpenAIProblem, JSON) if as_openai else (Problem, PROBLEM_JSON)
    schema = {"schema": {"$ref": _REF_TEMPLATE.format(model=message.__name__)}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {media_type: schema}}
        for status in (*statuses, 500)
    }


def add_openapi(app: FastAPI) -> None:
    """Complete the application's OpenAPI document with the messages that `json_body` and `problems` refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _, definitions = models_json_schema(
                [(message, "validation") for message in _MESSAGES], ref_template=_REF_TEMPLATE
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in definitions.get("$defs", {}).items():
                schemas.setdefault(name, schema)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
