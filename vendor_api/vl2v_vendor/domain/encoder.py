"""The model behind the counter: bytes and texts become pixels and token ids, and those become unit vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.errors import TooManyItems

PixelBatch = NDArray[np.uint8]
"""`[N, S, S, 3]` RGB8 at the model's input size."""

TokenBatch = NDArray[np.int64]
"""`[N, L]` token ids, padded with 0."""

ModelInput: TypeAlias = NDArray[np.uint8] | NDArray[np.int64]
"""One item of a `PixelBatch` or a `TokenBatch`."""

VectorBatch = NDArray[np.float32]
"""`[N, D]` unit-norm float32 embeddings."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What identifies a model and what its inputs look like (sent as `/v1/models`)."""

    id: str
    embedding_dim: int
    image_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    preprocessing_id: str
    context_length: int
    logit_scale: float
    logit_bias: float
    weights_sha: str
    precision: str
    device: str
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """An image or a text as the model takes it.

    Attributes:
        model_input: `[S, S, 3]` RGB8 pixels, or `[L]` token ids with start and end, which a batch may pad with 0.
        content_sha: Name of the content; see the contract's `identity`.
        tokens: Number of tokens of a whole text, before any cut; None for an image.
        truncated: Whether the text was cut to the context length.
        pixels: Number of pixels that were decoded for it.
    """

    model_input: ModelInput
    content_sha: str
    tokens: int | None = None
    truncated: bool = False
    pixels: int = 0


MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes that are checked before any work is done.

    Attributes:
        max_items: Number of items in one request.
        max_item_bytes: Size of one image file in bytes.
        max_request_bytes: Size of one request body in bytes.
        max_pixels: Pixels of one image, read from its header before it is decoded.
        max_text_bytes: Size of one text in UTF-8 bytes, before it is tokenized.
    """

    max_items: int = 256
    max_item_bytes: int = 20 * MEBIBYTE
    max_request_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 25_000_000
    max_text_bytes: int = 4096

    def check_items(self, count: int) -> None:
        """Check how many items a request has.

        Raises:
            TooManyItems: It has more than `max_items`.
        """
        if count > self.max_items:
            raise TooManyItems(count, self.max_items)


class LargeImage(Exception):
    """An image has more pixels than were to be decoded yet."""

    def __init__(self, pixels: int) -> None:
        super().__init__(f"{pixels} pixels")
        self.pixels = pixels


class Tokenizer(Protocol):
    """A text to token ids. Blocking and safe to call from several threads."""

    def tokenize(self, text: str, *, truncate: bool) -> PreparedItem:
        """Tokenize one text.

        Raises:
            ItemFailure: The text is longer than the context and may not be cut.
        """


class Encoder(Protocol):
    """The model, usually in a process of its own. Safe to await concurrently."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model.

        Raises:
            ModelUnavailable: It has not been loaded yet.
        """

    @property
    def ready(self) -> bool:
        """Whether the model is loaded, warm and alive."""

    @property
    def restarts(self) -> int:
        """How often its process was replaced."""

    async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm.

        Raises:
            ModelUnavailable: The model process died or is stuck; nothing was sold.
            EncodingFailed: The model could not encode this batch, and is ready for the next.
        """

    async def encode_tokens(self, texts: Sequence[NDArray[np.int64]]) -> VectorBatch:
        """Encode N texts of `[L]` token ids to `[N, D]` float32, unit norm; raises as `encode_images`."""
