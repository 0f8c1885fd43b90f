"""The values that rooms hand to each other, and seeds of named random streams."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]  # `[H, W, 3]` RGB8

MAX_IMAGE_SIZE = 1024
"""Pixels of a model's input, a teacher's or a student's: no pretrained model of timm or open_clip reads larger ones."""

MAX_WIDTH = 65_536  # width of embeddings and features
MAX_LOGIT_SCALE = 1e6  # logit scale of a text classifier, and its bias: CLIP's scale is 100
EmbeddingMatrix = NDArray[np.float32]  # `[N, D]` unit-norm float32


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image of a data set."""

    path: Path
    domain: str
    class_index: int


@dataclass(frozen=True, slots=True)
class PriceTag:
    """The price of one query, as agreed."""

    price_id: int
    unit_price_micro: int
    currency: str


@dataclass(frozen=True, slots=True)
class TeacherModel:
    """The vendor's model: what names its vectors, prices them and says how to use them."""

    id: str
    ledger_id: str
    embedding_dim: int
    image_size: int
    preprocessing_id: str
    context_length: int
    logit_scale: float
    logit_bias: float
    weights_sha: str
    precision: str
    image_price: PriceTag
    text_price: PriceTag
    max_items: int
    max_request_bytes: int


class PixelSource(Protocol):
    """Images that are read some at a time: an array `[M, S, S, 3]` uint8, or views that are rendered then."""

    def __len__(self) -> int:
        """`M`."""

    def __getitem__(self, places: slice | NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Return the images at some places."""


def child_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` under `seed`; stable across versions and platforms."""
    text = "\n".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream called `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(child_seed(seed, *names)))
