"""What `/v1/models` says of a model: enough for a client to name, price and reproduce what it buys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.identity import Modality
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
