"""A model without weights: every input becomes a unit vector made of its SHAKE-256 digest.

Deterministic on every machine, no torch, no files. It runs the whole product in tests and load harnesses.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import ModelInfo, VectorBatch
from vl2v_vendor.images.preprocessing import SAFE, Preprocessing


@dataclass(frozen=True)
class HashEncoder:
    """The encoder port, computed in the event loop: hashing a small image takes microseconds."""

    embedding_dim: int = 64
    image_size: int = 32
    context_length: int = 77
    policy: str = SAFE
    ready: ClassVar[bool] = True
    restarts: ClassVar[int] = 0

    @cached_property
    def info(self) -> ModelInfo:
        """A made-up model that says what it is."""
        preprocessing = Preprocessing(self.image_size, policy=self.policy)
        return ModelInfo(
            id=f"hash-{self.embedding_dim}",
            embedding_dim=self.embedding_dim,
            image_size=self.image_size,
            image_mean=preprocessing.mean,
            image_std=preprocessing.std,
            preprocessing_id=preprocessing.id,
            context_length=self.context_length,
            logit_scale=100.0,
            logit_bias=0.0,
            weights_sha=hashlib.sha256(b"vl2v-hash-encoder-v1").hexdigest(),
            precision="fp32",
            device="none",
        )

    async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""
        return np.stack([self._hash(image.tobytes()) for image in images])

    async def encode_tokens(self, texts: Sequence[NDArray[np.int64]]) -> VectorBatch:
        """Encode N texts of `[L]` token ids to `[N, D]` float32, unit norm; padding changes nothing."""
        return np.stack([self._hash(np.trim_zeros(text, "b").astype("<i8").tobytes()) for text in texts])

    def _hash(self, data: bytes) -> VectorBatch:
        numbers = np.frombuffer(hashlib.shake_256(data).digest(4 * self.embedding_dim), "<i4").astype(np.float64)
        return (numbers / np.linalg.norm(numbers)).astype(np.float32)
