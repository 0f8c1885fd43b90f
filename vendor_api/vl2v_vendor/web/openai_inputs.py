"""What an OpenAI-shaped request asks for, as this vendor's own items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from vl2v_contract.wire.openai import Input, OpenAIRequest, TextInput
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.web.bodies import check_values
from vl2v_vendor.web.errors import describe_faults

_DATA_URI: Final = "data:"
_IMAGE_URI: Final = "data:image/"
_INPUT_FORMS: Final = (
    '`input` is a text or a list, not empty, of texts, {"text": ...} or {"image": base64 or data URI}; '
    "token ids are not read"
)


class InvalidField(InvalidRequest):
    """One field of the request is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Inputs:
    """The items of a request: texts, or images as base64; one of the two is empty."""

    texts: Sequence[str]
    images: Sequence[str]


def parse_openai(body: bytes) -> OpenAIRequest:
    """Validate a JSON body.

    Raises:
        InvalidField: names the first wrong field, repeats no input.
    """
    check_values(body)
    try:
        return OpenAIRequest.model_validate_json(body)
    except ValidationError as error:
        fault = dict(error.errors(include_url=False, include_context=False, include_input=False)[0])
        location = fault["loc"]
        field = str(location[0])[:40] if isinstance(location, tuple) and location else "body"
        raise InvalidField(field, _INPUT_FORMS if field == "input" else describe_faults([fault])) from None


def inputs_of(request: OpenAIRequest) -> Inputs:
    """Sort the items.

    Raises:
        InvalidField: none, of both kinds, an URL, or a data URI that is not base64.
    """
    items = [request.input] if isinstance(request.input, str) else request.input
    if not items:
        raise InvalidField("input", _INPUT_FORMS)
    texts = [text for text in map(_text_of, items) if text is not None]
    if not texts:
        return Inputs((), [_base64_of(position, item) for position, item in enumerate(items)])
    if len(texts) < len(items):
        raise InvalidField(
            "input", "texts and images are in one request; send two, so that each is sold whole or not at all"
        )
    return Inputs(texts, ())


def _text_of(item: Input) -> str | None:
    if isinstance(item, TextInput):
        return item.text
    return item if isinstance(item, str) and not item.startswith(_IMAGE_URI) else None


def _base64_of(position: int, item: Input) -> str:
    image = item if isinstance(item, str) else getattr(item, "image", "")
    field = f"input[{position}]"
    if image[:8].lower().startswith(("http://", "https://")):
        raise InvalidField(field, f"{field} is an URL, and nothing is fetched here; send the file itself, as base64")
    if not image.startswith(_DATA_URI):
        return image
    kind, comma, content = image.partition(",")
    if not comma or not kind.endswith(";base64"):
        raise InvalidField(field, f"{field} is not a data URI such as data:image/png;base64,...")
    return content
