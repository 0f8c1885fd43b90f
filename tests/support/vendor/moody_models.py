"""Models for a process of their own that do on request what a model should not."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.hash_encoder import HashEncoder

SIZE = 2
SLEEP_FOR_EVER, COMPUTE_LONG = 251, 252
"""The grey levels at which a model hangs, and at which it computes for two seconds."""
POISON, BREAK, BREAK_SILENTLY = 253, 254, 250
"""The grey levels that fail alone, that lose the GPU, and from which on everything fails, no reason given."""


def grey(level: int) -> NDArray[np.uint8]:
    """One image of one level."""
    return np.full((SIZE, SIZE, 3), level, dtype=np.uint8)


class MoodyModel:
    """Says in its vectors `[cos, sin, batch, calls]` what it saw; the first two are a direction of the grey level."""

    info: ModelInfo = HashEncoder(embedding_dim=4, image_size=SIZE).info

    def __init__(self, seconds: float = 0.0, load_seconds: float = 0.0) -> None:
        time.sleep(load_seconds)
        self._seconds = seconds
        self._calls = 0

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        time.sleep(self._seconds)
        self._calls += 1
        levels = pixels[:, 0, 0, 0]
        if (pixels == SLEEP_FOR_EVER).all(axis=(1, 2, 3)).any():
            time.sleep(3600)
        if (pixels == COMPUTE_LONG).all(axis=(1, 2, 3)).any():
            started = time.monotonic()
            while time.monotonic() - started < 2:
                np.linalg.norm(np.ones(10_000))
        return self._tell(levels.astype(np.float64))

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        return self._tell(tokens.sum(axis=1).astype(np.float64))

    def _tell(self, numbers: NDArray[np.float64]) -> VectorBatch:
        vectors = np.zeros((len(numbers), 4), dtype=np.float32)
        vectors[:, :2] = direction(numbers)
        vectors[:, 2:] = len(numbers), self._calls
        return vectors


class BrittleModel(MoodyModel):
    """A moody model that fails at some images, and that some images break for good."""

    def __init__(self) -> None:
        super().__init__()
        self._ill: str | None = None

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        self._fall_ill(pixels)
        if self._ill:
            raise RuntimeError(self._ill)
        if (pixels == POISON).all(axis=(1, 2, 3)).any():
            raise RuntimeError("poison, injected")
        return super().encode_images(pixels)

    def _fall_ill(self, pixels: PixelBatch) -> None:
        if (pixels == BREAK).all(axis=(1, 2, 3)).any():
            self._ill = "CUDA error: an illegal memory access was encountered\nCompile with ..."
        if (pixels == BREAK_SILENTLY).all(axis=(1, 2, 3)).any():
            self._ill = "no convolution fits, injected"


def say_how_threads_wait() -> MoodyModel:
    """Refuses to load, and tells what torch's threads would have found."""
    found = " ".join(str(os.environ.get(name)) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    raise ModelLoadFailed(f"{found}, torch {'torch' in sys.modules}")


class UnitModel(MoodyModel):
    """A moody model that says nothing but its direction, so that its vectors can be sold."""

    def _tell(self, numbers: NDArray[np.float64]) -> VectorBatch:
        return np.hstack([direction(numbers), np.zeros((len(numbers), 2), dtype=np.float32)])


def direction(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """`[N]` numbers to `[N, 2]` unit vectors."""
    return np.stack([np.cos(numbers), np.sin(numbers)], axis=1).astype(np.float32)
