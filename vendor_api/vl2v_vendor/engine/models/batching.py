"""Encoding a batch in parts: on one processor thread each, and texts with others of about their length.

Threads that share an operation wait for each other after every one of some hundreds in a forward pass, and if one of
them loses its core for a moment, all do. Parts wait once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch

_FEWEST_ITEMS: Final = 2
"""In a part: below that a core alone is no faster than all cores are together."""


class BatchThreads:
    """As many threads as torch has, each of which computes alone.

    Args:
        threads: Number of torch's threads in the calling thread; with one, nothing is ever split.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model-part", initializer=_compute_alone)

    def encode(
        self, encode: Callable[[PixelBatch | TokenBatch], VectorBatch], batch: PixelBatch | TokenBatch
    ) -> VectorBatch:
        """Encode `[N, ...]` to `[N, D]`, in parts if they are large enough; no part is left running by an error."""
        if self._threads == 1 or len(batch) < self._threads * _FEWEST_ITEMS:
            return encode(batch)
        items = math.ceil(len(batch) / self._threads)
        parts = [self._pool.submit(encode, batch[first : first + items]) for first in range(0, len(batch), items)]
        wait(parts)
        return np.concatenate([part.result() for part in parts])


def _compute_alone() -> None:
    """Torch counts threads for each thread that calls it."""
    import torch

    torch.set_num_threads(1)


_SHORT: Final = 16
"""Tokens up to which lengths are alike: below that a forward pass costs about the same."""


def encode_in_buckets(encode: Callable[[TokenBatch], VectorBatch], tokens: TokenBatch) -> VectorBatch:
    """Encode texts of mixed lengths, none of them padded to more than twice its length or 16.

    Args:
        encode: `[n, l]` token ids, padded with 0, to `[n, D]`.
        tokens: `[N, L]` token ids, padded with 0.

    Returns:
        `[N, D]`, in the order of `tokens`.
    """
    buckets = list(_buckets(_lengths(tokens)))
    parts = [encode(np.ascontiguousarray(tokens[rows, :length])) for rows, length in buckets]
    if len(parts) == 1:
        return parts[0]
    vectors = np.empty((len(tokens), parts[0].shape[1]), dtype=np.float32)
    for (rows, _), part in zip(buckets, parts, strict=True):
        vectors[rows] = part
    return vectors


def _lengths(tokens: TokenBatch) -> NDArray[np.int64]:
    """`[N]` lengths without the padding, at least 1."""
    positions = np.arange(1, tokens.shape[1] + 1)
    lengths: NDArray[np.int64] = np.maximum((positions * (tokens != 0)).max(axis=1), 1)
    return lengths


def _buckets(lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Return the rows of each bucket and its longest length, from the longest bucket to the shortest."""
    rows = np.arange(len(lengths))
    while len(rows):
        longest = int(lengths[rows].max())
        is_alike = lengths[rows] > longest // 2 if longest > _SHORT else np.ones(len(rows), dtype=bool)
        yield rows[is_alike], longest
        rows = rows[~is_alike]
