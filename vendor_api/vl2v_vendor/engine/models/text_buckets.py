"""Texts of like length run together, so that a short one is not padded to the length of a long one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import TokenBatch, VectorBatch

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
