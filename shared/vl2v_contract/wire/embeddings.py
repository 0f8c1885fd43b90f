"""Models on sale, and requests for their embeddings with the answers.

An image request is JSON (`ImagesRequest`); multipart: file fields named `images`, in order, and one optional form
field `options` that holds `RequestOptions` as JSON; or a frame (`frames.UploadHead`). A text request is JSON. The
answer has one element per item, in order: a vector, or an error of its own.
"""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt, RequestRecord, SignedRecompute
from vl2v_contract.vectors import Dtype
from vl2v_contract.wire.errors import ItemError
from vl2v_contract.wire.headers import JSON, MULTIPART


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Price(_Frozen):
    """The price in force for one modality of one model."""

    price_id: int
    modality: Modality
    unit_price_micro: int = Field(ge=0)
    currency: str
    valid_from: int


class Limits(_Frozen):
    """What one request may hold."""

    max_items: int
    max_item_bytes: int
    max_request_bytes: int
    max_pixels: int
    max_text_bytes: int


class ModelCard(_Frozen):
    """A model on sale."""

    id: str
    ledger_id: str
    embedding_dim: int
    image_size: int = Field(description="Input height and width in pixels.")
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    preprocessing_id: str
    context_length: int
    logit_scale: float = Field(description="exp() of the model's own value: what a cosine is multiplied by.")
    logit_bias: float = Field(default=0.0, description="Added after the scale (SigLIP).")
    weights_sha: str
    precision: str
    prices: list[Price]
    limits: Limits
    image_uploads: tuple[str, ...] = Field(
        default=(JSON, MULTIPART), description="Media types in which images are taken; the cheapest to read last."
    )
    answers: tuple[str, ...] = Field(default=(JSON,), description="Media types in which vectors are delivered.")


class ModelList(_Frozen):
    """All models on sale; the first is the default."""

    data: list[ModelCard]


Encoding = Literal["base64", "float", "raw"]  # vectors as base64 or as numbers in JSON, or raw in a frame (`framed`)
ItemKey = Annotated[str, Field(description="64 lower-case hex digits; one key is charged once, for ever.")]
_ENCODING = "When absent, by the `Accept` header: `raw` if it prefers application/octet-stream, else `base64`."

MAX_ITEMS: Final = 10_000  # in one request of any vendor; each has a lower limit of its own

Element = TypeVar("Element")
Items = Annotated[list[Element], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
"""One element per item; the first that is wrong ends the reading."""


def has_too_many_values(json: bytes, most: int = 100_000) -> bool:
    """Return whether JSON holds more values than so many, by default than any request needs, without parsing it.

    A parser takes some hundred bytes of memory for each value.
    """
    return json.count(b",") > most


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Options(_Request):
    model: str | None = Field(default=None, description="A model id; the vendor's default when absent.")
    encoding: Encoding | None = Field(default=None, description=_ENCODING)
    dtype: Dtype = "float32"
    price_id: int | None = Field(default=None, description="Refuse with 409 if this price is no longer in force.")
    max_charge_micro: int | None = Field(default=None, ge=0, description="Refuse with 409 if it would cost more.")
    allow_partial: bool = Field(
        default=False,
        description="Bill the longest prefix of valid new items that every budget admits, rather than all or nothing.",
    )


class RequestOptions(_Options):
    """The `options` field of a multipart image request."""

    item_keys: Items[ItemKey | None] | None = Field(default=None, description="One per image, in order.")


class ImageItem(_Request):
    """One image: the bytes of a file, base64."""

    image: str
    item_key: ItemKey | None = None


class ImagesRequest(_Options):
    """`POST /v1/embeddings/images` as JSON."""

    items: Items[ImageItem]


class TextItem(_Request):
    """One text."""

    text: str
    item_key: ItemKey | None = None


class TextsRequest(_Options):
    """`POST /v1/embeddings/texts`."""

    items: Items[TextItem]
    truncate: bool = Field(default=False, description="Cut a text over the context length instead of refusing it.")


class ReplayRequest(_Request):
    """`POST /v1/embeddings/replay`: paid vectors again, free, while they are kept."""

    item_keys: Items[ItemKey]
    encoding: Encoding | None = Field(default=None, description=_ENCODING)
    dtype: Dtype = "float32"


class ItemResult(BaseModel):
    """What became of one item."""

    index: int = Field(ge=0)
    item_key: str | None = Field(description="As sent; made by the vendor when the client named none.")
    status: Literal["billed", "replayed", "recomputed", "failed"]
    embedding: str | list[float] | None = Field(
        default=None,
        description="Unit-norm vector [D]: base64 little-endian bytes of `dtype`, numbers, or null if raw.",
    )
    result_sha: str | None = Field(default=None, description="SHA-256 of the vector's float16 bytes, as billed.")
    seq: int | None = Field(default=None, description="The ledger entry that paid for it.")
    tokens: int | None = Field(default=None, description="Tokens of a text, start and end included.")
    truncated: bool = False
    recompute: SignedRecompute | None = None
    error: ItemError | None = None


class Usage(BaseModel):
    """What this answer cost. Failed and replayed items cost nothing."""

    billed_units: int
    replayed_units: int
    failed_items: int
    unit_price_micro: int
    amount_micro: int
    currency: str
    price_id: int | None


class BudgetState(BaseModel):
    """The account's budget, and the key's own if it has one, after this request."""

    limit_units: int
    remaining_units: int
    key_limit_units: int | None = None
    key_remaining_units: int | None = None


class EmbeddingsResponse(BaseModel):
    """The answer to every embeddings request."""

    request_id: str
    model: str
    embedding_dim: int
    encoding: Encoding
    dtype: Dtype
    data: list[ItemResult]
    usage: Usage
    budget: BudgetState
    receipt: Receipt | None = Field(description="Null when nothing was billed.")
    paid_by: list[RequestRecord] = Field(
        description="The earlier purchases that paid for the free items of this answer, each once, by `seq`: a receipt "
        "byte for byte as first given, and the items that it covers."
    )
