"""Request bodies: read after the caller is known and admitted, parsed in a thread, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from vl2v_contract.wire.embeddings import ImagesRequest, RequestOptions, has_too_many_values
from vl2v_contract.wire.framed import unpack_upload
from vl2v_contract.wire.frames import ContractError
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR
from vl2v_vendor.domain.errors import InvalidRequest, UnsupportedMediaType
from vl2v_vendor.service.preparation import ImageSource, RawPixels
from vl2v_vendor.service.stage_clock import timed
from vl2v_vendor.web.errors import describe_faults
from vl2v_vendor.web.multipart_form import parse_form

Message = TypeVar("Message", bound=BaseModel)
Parsed = TypeVar("Parsed")

_MAX_FORM_PARTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ImagesBody:
    """An image request, whichever form it came in."""

    options: ImagesRequest | RequestOptions
    sources: Sequence[ImageSource]
    item_keys: Sequence[str | None] | None


async def read_json(request: Request, message: type[Message]) -> Message:
    """Read and validate a JSON body.

    Raises:
        UnsupportedMediaType: the body is not JSON, or compressed.
        InvalidRequest: it is not the message; names the fields, repeats no input.
    """
    require_json(request)
    return await read_body(request, lambda body: _validate(message, body))


async def read_images(request: Request) -> ImagesBody:
    """Read an image request in any of the forms of `UPLOAD_FORMS`.

    Raises:
        UnsupportedMediaType: in no such form, or compressed.
        InvalidRequest: fields are missing, unknown or malformed.
    """
    parse = _PARSERS.get(_media_type(request))
    if parse is None:
        raise UnsupportedMediaType(f"send images as one of {', '.join(UPLOAD_FORMS)}")
    content_type = request.headers["content-type"]
    return await read_body(request, lambda body: parse(content_type, body))


def require_json(request: Request) -> None:
    """Refuse a request whose body is not JSON; raises UnsupportedMediaType."""
    if _media_type(request) != JSON:
        raise UnsupportedMediaType(f"send this request as {JSON}")


async def read_body(request: Request, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Read the whole body, and parse it in a thread.

    Raises:
        UnsupportedMediaType: it is compressed: nothing is inflated here, so nothing can explode.
        PayloadTooLarge, Overloaded: as `BodyLimit`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not read; send it without Content-Encoding")
    with timed("parse"):
        chunks = [chunk async for chunk in request.stream()]
        return await asyncio.to_thread(lambda: parse(b"".join(chunks)))


def _parse_json(_content_type: str, body: bytes) -> ImagesBody:
    options = _validate(ImagesRequest, body)
    return ImagesBody(options, [item.image for item in options.items], [item.item_key for item in options.items])


def _parse_multipart(content_type: str, body: bytes) -> ImagesBody:
    options: RequestOptions | None = None
    sources = list[ImageSource]()
    for part in parse_form(content_type, body, max_parts=_MAX_FORM_PARTS):
        if part.name == "images" and part.is_file:
            sources.append(part.data)
        elif part.name == "options" and not part.is_file:
            if options is not None:
                raise InvalidRequest("two form fields `options`; send one")
            options = _validate(RequestOptions, part.data)
        else:
            raise InvalidRequest(f"unknown form field `{part.name[:40]}`; files are `images`, options `options`")
    if not sources:
        raise InvalidRequest("no images; send at least one file field named `images`")
    options = options or RequestOptions()
    return ImagesBody(options, sources, options.item_keys)


def _parse_files(_content_type: str, body: bytes) -> ImagesBody:
    return _parse_frame(body, bytes)


def _parse_pixels(_content_type: str, body: bytes) -> ImagesBody:
    return _parse_frame(body, RawPixels)


def _parse_frame(body: bytes, source_of: Callable[[memoryview], ImageSource]) -> ImagesBody:
    try:
        head, images = unpack_upload(body)
    except ContractError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None
    return ImagesBody(head, [source_of(image) for image in images], head.item_keys)


_PARSERS: Final[dict[str, Callable[[str, bytes], ImagesBody]]] = {
    JSON: _parse_json,
    MULTIPART: _parse_multipart,
    OCTET_STREAM: _parse_files,
    RGB8_TENSOR: _parse_pixels,
}

UPLOAD_FORMS: Final = tuple(_PARSERS)
"""Media types in which images are read."""


def check_values(body: bytes) -> None:
    """Refuse JSON that would take far more memory than its own size to parse; raises InvalidRequest."""
    if has_too_many_values(body):
        raise InvalidRequest("the body holds more values than any request needs; send fewer items at a time")


def _validate(message: type[Message], body: bytes) -> Message:
    check_values(body)
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(describe_faults([dict(fault) for fault in faults])) from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
