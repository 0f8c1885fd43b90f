"""Targets of distillation: each view of each sample joined with the embedding that was bought for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError
from vl2v_client.teacher.text_classifier import unit_rows


@dataclass(frozen=True)
class ImageTargets:
    """The teacher's image embeddings of `K` views of `N` samples.

    Attributes:
        vectors: `[N, K, D]` float32 of unit rows; zero where there is neither a bought nor an imputed embedding.
        bought: `[N, K]` bool.
        weights: `[N, K]` float32, the trust in each: 1 bought, between 0 and 1 imputed, 0 nothing (then the text
            trains alone).
    """

    vectors: NDArray[np.float32]
    bought: NDArray[np.bool_]
    weights: NDArray[np.float32]

    @classmethod
    def of_bought(cls, vectors: NDArray[np.float32], bought: NDArray[np.bool_]) -> ImageTargets:
        """Return targets of which none is imputed: what was bought is trusted fully, and nothing else at all."""
        return cls(vectors, bought, bought.astype(np.float32))


def join_image_targets(
    cache_keys: Sequence[Sequence[str]],
    vectors: Mapping[str, NDArray[np.float16] | NDArray[np.float32]],
    *,
    dimension: int,
    names: Sequence[str],
    allow_missing: bool = False,
) -> ImageTargets:
    """Look up the embedding of every view.

    Args:
        cache_keys: `K` keys for each of `N` samples; the same key twice (the same pixels) is fine.
        vectors: What the cache holds, `[D]` each, in any scale.
        dimension: The teacher's width `D`.
        names: `N` file names, for messages.
        allow_missing: Leave unbought views at zero and say so in `bought`, instead of refusing.

    Raises:
        CacheError: A view was not bought, or its vector has another width.
    """
    count = len(cache_keys[0]) if cache_keys else 0
    joined = np.zeros((len(cache_keys), count, dimension), dtype=np.float32)
    bought = np.zeros((len(cache_keys), count), dtype=np.bool_)
    for row, (keys, name) in enumerate(zip(cache_keys, names, strict=True)):
        for view, key in enumerate(keys):
            vector = vectors.get(key)
            if vector is None:
                if not allow_missing:
                    raise CacheError(
                        f"the cache holds no embedding of view {view} of {name} (key {key[:12]}): buy the plan first"
                    )
                continue
            if vector.shape != (dimension,):
                raise CacheError(
                    f"the embedding of view {view} of {name} (key {key[:12]}) has shape {vector.shape}, "
                    f"not ({dimension},): verify the cache"
                )
            joined[row, view] = vector
            bought[row, view] = True
    for view in range(joined.shape[1]):
        if bought[:, view].any():
            joined[bought[:, view], view] = unit_rows(joined[bought[:, view], view])
    return ImageTargets.of_bought(joined, bought)


def borrow_from_same_image(targets: ImageTargets) -> ImageTargets:
    """Give every view without a target the mean of those of its own image, as their trust weighs them.

    A view shows what its image shows, so that a teacher answers alike on both; the student learns to do so too, also
    on views that are strange to it, and no query is spent on them.

    Args:
        targets: Targets of `N` samples and `K` views.

    Returns:
        The targets with those views filled, not bought, at the mean weight of what they borrow; a sample of which no
        view has a target gets none.
    """
    lent = targets.weights > 0
    lenders = lent.sum(axis=1, keepdims=True)  # [N, 1]
    fills = ~lent & (lenders > 0)
    if not fills.any():
        return targets
    mean = np.einsum("nk,nkd->nd", targets.weights, targets.vectors)
    weight = targets.weights.sum(axis=1, keepdims=True) / np.maximum(lenders, 1)
    vectors, weights = targets.vectors.copy(), np.where(fills, weight, targets.weights).astype(np.float32)
    lending = lenders[:, 0] > 0
    mean[lending] = unit_rows(mean[lending])
    for view in range(vectors.shape[1]):  # one at a time: all at once would take as much memory again
        vectors[fills[:, view], view] = mean[fills[:, view]]
    return ImageTargets(vectors, targets.bought, weights)
