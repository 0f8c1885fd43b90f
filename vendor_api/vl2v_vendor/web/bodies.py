"""Request bodies: read after the caller is known, parsed in a thread, off the event loop."""

import asyncio
import io
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar, cast

import python_multipart
from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header

from vl2v_contract.wire.embeddings import ImagesRequest, RequestOptions, has_too_many_values
from vl2v_contract.wire.frames import ContractError, unpack_upload
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR
from vl2v_vendor.domain.errors import InvalidRequest, TooManyItems, UnsupportedMediaType
from vl2v_vendor.observe.request_trace import timed
from vl2v_vendor.service.preparation import ItemSource
from vl2v_vendor.web.problems import describe_faults

Message = TypeVar("Message", bound=BaseModel)
Parsed = TypeVar("Parsed")

_MAX_FORM_PARTS: Final = 10_000
_IN_MEMORY: Final = {"MAX_MEMORY_FILE_SIZE": float("inf")}


ImagesBody: TypeAlias = tuple[ImagesRequest | RequestOptions, Sequence[ItemSource], Sequence[str | None] | None]
"""An image request in any of its forms: its options, images and item keys."""


async def read_json(request: Request, message: type[Message]) -> Message:
    """Read and validate a JSON body.

    Raises:
        UnsupportedMediaType: The body is not JSON, or compressed.
        InvalidRequest: The body is not the message; names the fields, repeats no input.
    """
    require_json(request)
    return await read_body(request, lambda body: _validate(message, body))


async def read_images(request: Request) -> ImagesBody:
    """Read an image request in any of the forms of `UPLOAD_FORMS`.

    Raises:
        UnsupportedMediaType: The body is in no such form, or compressed.
        InvalidRequest: Fields are missing, unknown or malformed.
    """
    content_type = request.headers.get("content-type", "")
    parse = _PARSERS.get(_media_type(content_type))
    if parse is None:
        raise UnsupportedMediaType(f"send images as one of {', '.join(UPLOAD_FORMS)}")
    return await read_body(request, lambda body: parse(content_type, body))


def require_json(request: Request) -> None:
    """Check that a request's body is JSON.

    Raises:
        UnsupportedMediaType: It is declared as something else.
    """
    if _media_type(request.headers.get("content-type", "")) != JSON:
        raise UnsupportedMediaType(f"send this request as {JSON}")


async def read_body(request: Request, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Read the whole body, and parse it in a thread.

    Raises:
        UnsupportedMediaType: The body is compressed: nothing is inflated here, so nothing can explode.
        PayloadTooLarge: See `BodyLimit`.
        Overloaded: See `BodyLimit`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not read; send it without Content-Encoding")
    with timed("parse"):
        chunks = [chunk async for chunk in request.stream()]
        return await asyncio.to_thread(lambda: parse(b"".join(chunks)))


def check_values(body: bytes) -> None:
    """Check that JSON does not take far more memory to parse than its own size; pydantic has no such limit.

    Raises:
        InvalidRequest: The body holds too many values.
    """
    if has_too_many_values(body):
        raise InvalidRequest("the body holds more values than any request needs; send fewer items at a time")


def _parse_json(_content_type: str, body: bytes) -> ImagesBody:
    options = _validate(ImagesRequest, body)
    return options, [item.image for item in options.items], [item.item_key for item in options.items]


def _parse_multipart(content_type: str, body: bytes) -> ImagesBody:
    """Parse a form by python-multipart's own parser: Starlette's runs on the event loop, as the body comes in."""
    options: RequestOptions | None = None
    sources = list[ItemSource]()
    for part in _form_parts(content_type, body):
        name = (part.field_name or b"").decode("utf-8", errors="replace")
        if name == "images" and isinstance(part, File):
            sources.append(cast("io.BytesIO", part.file_object).getvalue())
        elif name == "options" and isinstance(part, Field):
            if options is not None:
                raise InvalidRequest("two form fields `options`; send one")
            options = _validate(RequestOptions, part.value or b"")
        else:
            raise InvalidRequest(f"unknown form field `{name[:40]}`; files are `images`, options `options`")
    if not sources:
        raise InvalidRequest("no images; send at least one file field named `images`")
    options = options or RequestOptions()
    return options, sources, options.item_keys


def _form_parts(content_type: str, body: bytes) -> list[Field | File]:
    parts: list[Field | File] = []
    ends: list[bool] = []

    def take(part: Field | File) -> None:
        if len(parts) == _MAX_FORM_PARTS:
            raise TooManyItems(_MAX_FORM_PARTS + 1, _MAX_FORM_PARTS)
        parts.append(part)

    _, parameters = parse_options_header(content_type)
    try:
        parser = python_multipart.FormParser(
            MULTIPART, take, take, lambda: ends.append(True), boundary=parameters.get(b"boundary"), config=_IN_MEMORY
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"the multipart body is malformed: {error}") from None
    if not ends:
        raise InvalidRequest("the multipart body is malformed: it ends before its closing boundary")
    return parts


def _parse_frame(content_type: str, body: bytes) -> ImagesBody:
    try:
        options, images = unpack_upload(body)
    except ContractError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None
    wrap = memoryview if _media_type(content_type) == RGB8_TENSOR else bytes
    return options, [wrap(image) for image in images], options.item_keys


_PARSERS: Final[dict[str, Callable[[str, bytes], ImagesBody]]] = {
    JSON: _parse_json,
    MULTIPART: _parse_multipart,
    OCTET_STREAM: _parse_frame,
    RGB8_TENSOR: _parse_frame,
}

UPLOAD_FORMS: Final = tuple(_PARSERS)
"""Media types in which images are read."""


def _validate(message: type[Message], body: bytes) -> Message:
    check_values(body)
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(describe_faults(error.errors())) from None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
