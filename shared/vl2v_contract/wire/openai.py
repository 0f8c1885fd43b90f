"""OpenAI's embeddings API as far as it is spoken here: `POST /v1/embeddings`.

Beside texts it takes images, as Jina's API does. An element of `input` that begins with `data:image/` is an image too.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.wire.embeddings import Items


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextInput(_Request):
    """A text, spelled out."""

    text: str


class ImageInput(_Request):
    """An image: the bytes of a file as base64, with or without a `data:` prefix. URLs are not fetched."""

    image: str


Input: TypeAlias = str | TextInput | ImageInput


class OpenAIRequest(_Request):
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
