"""A multipart form that is in memory, taken apart by python-multipart's own parser; blocking, for a worker thread.

Starlette's form parser runs on the event loop, in steps as the body comes in.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import cast

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header

from vl2v_contract.wire.headers import MULTIPART
from vl2v_vendor.domain.errors import InvalidRequest, TooManyItems

_IN_MEMORY = {"MAX_MEMORY_FILE_SIZE": float("inf")}


@dataclass(frozen=True, slots=True)
class FormPart:
    """One field of a form.

    Attributes:
        name: of the field.
        data: its value, or the file's bytes.
        is_file: whether it came with a file name.
    """

    name: str
    data: bytes
    is_file: bool


def parse_form(content_type: str, body: bytes, *, max_parts: int) -> list[FormPart]:
    """Take a form apart; its parts in order.

    Args:
        content_type: the header, which names the boundary.
        body: the whole of it.
        max_parts: more are refused as they are found.

    Raises:
        InvalidRequest: the body is no such form.
        TooManyItems: more than `max_parts`.
    """
    parts: list[FormPart] = []
    is_whole = False

    def take(part: Field | File) -> None:
        if len(parts) == max_parts:
            raise TooManyItems(max_parts + 1, max_parts)
        parts.append(_read(part))

    def end() -> None:
        nonlocal is_whole
        is_whole = True

    _, parameters = parse_options_header(content_type)
    try:
        parser = python_multipart.FormParser(
            MULTIPART, take, take, end, boundary=parameters.get(b"boundary"), config=_IN_MEMORY
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"the multipart body is malformed: {error}") from None
    if not is_whole:
        raise InvalidRequest("the multipart body is malformed: it ends before its closing boundary")
    return parts


def _read(part: Field | File) -> FormPart:
    name = (part.field_name or b"").decode("utf-8", errors="replace")
    if isinstance(part, File):
        return FormPart(name, cast("io.BytesIO", part.file_object).getvalue(), is_file=True)
    return FormPart(name, part.value or b"", is_file=False)
