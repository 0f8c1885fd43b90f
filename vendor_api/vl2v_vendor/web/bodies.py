"""Request bodies, read after the caller is known and parsed off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from vl2v_contract.wire.embeddings import ImagesRequest, RequestOptions
from vl2v_vendor.domain.errors import InvalidRequest, UnsupportedMediaType
from vl2v_vendor.service.preparation import ImageSource
from vl2v_vendor.web.errors import describe_faults

Message = TypeVar("Message", bound=BaseModel)

_JSON = "application/json"
_MULTIPART = "multipart/form-data"
_MAX_MULTIPART_FILES = 10_000
_BAD_REQUEST = 400


@dataclass(frozen=True, slots=True)
class ImagesBody:
    """An image request in either of its forms."""

    options: ImagesRequest | RequestOptions
    sources: Sequence[ImageSource]
    item_keys: Sequence[str | None] | None


async def read_json(request: Request, message: type[Message]) -> Message:
    """Read and validate a JSON body.

    Raises:
        UnsupportedMediaType: the body is not JSON.
        InvalidRequest: it is not the message; names the fields, repeats no input.
    """
    if _media_type(request) != _JSON:
        raise UnsupportedMediaType(f"send this request as {_JSON}")
    body = await request.body()
    return await asyncio.to_thread(_validate, message, body)


async def read_images(request: Request) -> ImagesBody:
    """Read an image request: JSON with base64, or multipart with file fields `images` and a form field `options`.

    Raises:
        UnsupportedMediaType: neither of the two.
        InvalidRequest: fields are missing, unknown or malformed.
    """
    media_type = _media_type(request)
    if media_type == _MULTIPART:
        return await _read_multipart(request)
    if media_type != _JSON:
        raise UnsupportedMediaType(f"send images as {_JSON} or {_MULTIPART}")
    options = await read_json(request, ImagesRequest)
    return ImagesBody(options, [item.image for item in options.items], [item.item_key for item in options.items])


async def _read_multipart(request: Request) -> ImagesBody:
    options, sources = RequestOptions(), list[ImageSource]()
    try:
        async with request.form(max_files=_MAX_MULTIPART_FILES, max_fields=2) as form:
            for name, value in form.multi_items():
                if name == "images" and isinstance(value, UploadFile):
                    sources.append(await value.read())
                elif name == "options" and isinstance(value, str):
                    options = _validate(RequestOptions, value.encode("utf-8", errors="replace"))
                else:
                    raise InvalidRequest(f"unknown form field `{name[:40]}`; files are `images`, options `options`")
    except HTTPException as error:
        if error.status_code != _BAD_REQUEST:
            raise
        raise InvalidRequest(f"the multipart body is malformed: {error.detail}") from None
    except UnicodeError:
        raise InvalidRequest("the multipart body names a character set that cannot be read; send UTF-8") from None
    if not sources:
        raise InvalidRequest("no images; send at least one file field named `images`")
    return ImagesBody(options, sources, options.item_keys)


def _validate(message: type[Message], body: bytes) -> Message:
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(describe_faults([dict(fault) for fault in faults])) from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
