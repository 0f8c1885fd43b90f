"""OpenAI's embeddings API, `POST /v1/embeddings`, as far as it is spoken: requests, answers and refusals.

Beside texts it takes images, in the forms in which servers of CLIP models take them: `{"image": ...}` as Jina's API
has it, the content parts of OpenAI's chat API (`{"type": "image_url", "image_url": {"url": "data:image/..."}}`), and a
data URI as a string. Nothing is fetched, so the URL of an image is refused wherever it stands.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.identity import Modality
from vl2v_contract.texts import is_address
from vl2v_contract.wire.embeddings import Items


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextInput(_Closed):
    """A text, spelled out."""

    type: Literal["text"] | None = None
    text: str


class ImageInput(_Closed):
    """An image: the bytes of a file as base64, with or without a `data:` prefix. URLs are not fetched."""

    image: str


class ImageUrl(_Closed):
    """An image as a `data:` URL. URLs are not fetched."""

    url: str
    detail: str | None = Field(default=None, description="Accepted and not used.")


class ImageUrlInput(_Closed):
    """An image as a content part of OpenAI's chat API."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class ContentInput(_Closed):
    """A message's content of one part: an element of `input` becomes one vector."""

    content: Annotated[list[TextInput | ImageUrlInput], Field(min_length=1, max_length=1)]


Input: TypeAlias = str | TextInput | ImageInput | ImageUrlInput | ContentInput

INPUT_FORMS = (
    '`input` is a text or a list, not empty, of texts, {"text": ...}, {"image": base64 or data URI} or {"type": '
    '"image_url", "image_url": {"url": "data:image/png;base64,..."}}, one for each vector; token ids are not read'
)
"""What may stand there, for a refusal."""


class InputFault(ValueError):
    """What stands in `input` cannot be sold; `field` is the element, and the message repeats none of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class OpenAIRequest(_Closed):
    """`POST /v1/embeddings`. Sold whole or not at all: an item that fails refuses the request; nothing is billed."""

    model: str = Field(description="A model id, as /v1/models names it.")
    input: str | Items[Input] = Field(description="Texts or images; all of one kind.")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="Numbers when absent; base64 is of little-endian float32."
    )
    dimensions: int | None = Field(default=None, description="Nothing but the model's own width.")
    user: str | None = Field(default=None, description="Accepted and not used.")


class OpenAIEmbedding(BaseModel):
    """One unit-norm vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: str | list[float]


class OpenAIUsage(BaseModel):
    """Tokens of texts, start and end included; images have none. What was billed is in the headers."""

    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(BaseModel):
    """The answer."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIFault(BaseModel):
    """What went wrong, in OpenAI's words; `code` is one of `ErrorCode`, or OpenAI's own where it has one."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIProblem(BaseModel):
    """The body of every answer that is not 2xx."""

    error: OpenAIFault


def read_input(given: str | Sequence[Input]) -> tuple[Modality, list[str]]:
    """Return the items of a request, all of one modality: texts, or the base64 of image files.

    Raises:
        InputFault: There are no items, items of both kinds, a URL, or a data URI that is not base64 or of no image.
    """
    items = [given] if isinstance(given, str) else [_part(item) for item in given]
    if not items:
        raise InputFault("input", INPUT_FORMS)
    texts = [item.text if isinstance(item, TextInput) else item for item in items if _is_text(item)]
    if not texts:
        return "image", [_base64_of(f"input[{position}]", item) for position, item in enumerate(items)]
    if len(texts) < len(items):
        why = "texts and images are in one request; send two, so that each is sold whole or not at all"
        raise InputFault("input", why)
    for position, item in enumerate(items):
        if isinstance(item, str):
            _check_text(f"input[{position}]", item)
    return "text", [str(text) for text in texts]


def _part(item: Input) -> str | TextInput | ImageInput | ImageUrlInput:
    return item.content[0] if isinstance(item, ContentInput) else item


def _is_text(item: Input) -> bool:
    if isinstance(item, str):
        return not item[:11].lower().startswith("data:image/")
    return isinstance(item, TextInput)


def _check_text(field: str, text: str) -> None:
    """Refuse a bare string that is an address: whoever writes one means what lies there."""
    if is_address(text):
        how = 'send the file itself, as data:image/png;base64,..., or {"text": ...} if these letters are the text'
        raise InputFault(field, f"{field} is a URL, and nothing is fetched here; {how}")


def _base64_of(field: str, item: Input) -> str:
    image = _address_of(item).strip()
    if image[:8].lower().startswith(("http://", "https://", "file://")):
        why = f"{field} is a URL, and nothing is fetched here; send the file itself, as data:image/png;base64,..."
        raise InputFault(field, why)
    if image[:5].lower() != "data:":
        return image
    kind, comma, content = image.partition(",")
    if not comma or not kind.lower().endswith(";base64"):
        raise InputFault(field, f"{field} is not a data URI such as data:image/png;base64,...")
    return content


def _address_of(item: Input) -> str:
    if isinstance(item, ImageUrlInput):
        return item.image_url if isinstance(item.image_url, str) else item.image_url.url
    return item.image if isinstance(item, ImageInput) else str(item)
