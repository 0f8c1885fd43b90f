"""What the OpenAPI document says beyond what FastAPI finds by itself: bodies that handlers read, and problems."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vl2v_contract.wire.admin import NewAccount, NewKey, NewPrice, NewRefund, NewTopUp
from vl2v_contract.wire.embeddings import ImagesRequest, ReplayRequest, RequestOptions, TextsRequest
from vl2v_contract.wire.errors import Problem
from vl2v_contract.wire.headers import PROBLEM_JSON

SALE_STATUSES: Final = (401, 402, 403, 404, 409, 413, 415, 422, 429, 503)
"""Everything but 200 and 500 that can become of a sale."""

_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    ImagesRequest,
    RequestOptions,
    TextsRequest,
    ReplayRequest,
    NewAccount,
    NewTopUp,
    NewRefund,
    NewKey,
    NewPrice,
    Problem,
)
_REF_TEMPLATE: Final = "#/components/schemas/{model}"


def json_body(message: type[BaseModel]) -> dict[str, Any]:
    """A required JSON body that the handler reads itself, after the caller is known."""
    schema = {"$ref": _REF_TEMPLATE.format(model=message.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem answers by status, the internal error included."""
    schema = {"schema": {"$ref": _REF_TEMPLATE.format(model=Problem.__name__)}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: schema}}
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
