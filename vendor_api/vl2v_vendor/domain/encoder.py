"""The encoder port: pixels or token ids in, unit vectors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PixelBatch = NDArray[np.uint8]
"""`[N, S, S, 3]` RGB8 at the model's input size."""

TokenBatch = NDArray[np.int64]
"""`[N, L]` token ids, padded with 0."""

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


class Encoder(Protocol):
    """The model behind the counter, usually in a process of its own. Safe to await concurrently."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model.

        Raises:
            ModelUnavailable: it has not been loaded yet.
        """

    async def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32, unit norm.

        Raises:
            Overloaded: the queue is full.
            ModelUnavailable: the model process died or is stuck; nothing was sold.
        """

    async def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids to `[N, D]` float32, unit norm; raises as `encode_images`."""
