"""Forms that a page sends: small, read after the caller is known where there is one."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from fastapi import Request

from vl2v_vendor.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_MAX_BYTES: Final = 8192
_MAX_FIELDS: Final = 40


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, each with its values in order."""

    fields: dict[str, list[str]]

    def text(self, name: str) -> str:
        """Return a field's first value without spaces around it, or an empty text."""
        return self.fields.get(name, [""])[0].strip()

    def texts(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self.fields.get(name, [])

    def number(self, name: str, label: str) -> int | None:
        """Return a field's whole number, or None if it is empty.

        Raises:
            InvalidRequest: It is no whole number; names the `label`.
        """
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 16):
            raise InvalidRequest(f"{label}: give a whole number, or leave it empty")
        return int(text)


async def read_form(request: Request) -> Form:
    """Read the form in a request's body.

    Raises:
        UnsupportedMediaType: The body is no form.
        PayloadTooLarge: It is, or may be, larger than any form of these pages; it is not read.
        InvalidRequest: It cannot be read.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE or "content-encoding" in request.headers:
        raise UnsupportedMediaType(f"send this form as {_MEDIA_TYPE}")
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _MAX_BYTES:
        raise PayloadTooLarge(f"the form is larger than {_MAX_BYTES} bytes, or does not say how large it is")
    body = await request.body()
    try:
        return Form(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None
