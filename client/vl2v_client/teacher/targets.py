"""Image targets of each view: the embedding bought for it, or one of its own image borrowed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.teacher.stored_vectors import StoredVectors, in_memory
from vl2v_client.teacher.text_classifier import unit_rows

Fetch = Callable[[Sequence[str]], Mapping[str, NDArray[np.floating]]]
"""Gives the vectors of those cache keys that it has."""

_ROWS_AT_ONCE = 1_000
"""Samples whose vectors are fetched and scaled at a time: all at once would take several times the targets' memory."""


@dataclass(frozen=True)
class ImageTargets:
    """The teacher's image embeddings of `K` views of `N` samples.

    Attributes:
        vectors: `[N, K, D]` float32 of unit rows; zero where there is neither a bought nor an imputed embedding.
        bought: `[N, K]` bool.
        weights: `[N, K]` float32, the trust in each: 1 bought, between 0 and 1 imputed, 0 nothing (then the text
            trains alone).
        borrowing: How many of the views have the target of other views of their image.
    """

    vectors: NDArray[np.float32] | StoredVectors
    bought: NDArray[np.bool_]
    weights: NDArray[np.float32]
    borrowing: int = 0

    @classmethod
    def of_bought(cls, vectors: NDArray[np.float32] | StoredVectors, bought: NDArray[np.bool_]) -> "ImageTargets":
        """Return targets of which none is imputed: what was bought is trusted fully, and nothing else at all."""
        return cls(vectors, bought, bought.astype(np.float32))

    def of_views(self, chosen: NDArray[np.int64]) -> "ImageTargets":
        """Return the targets of some views of each sample, by their number, `[N, J]`."""
        if isinstance(self.vectors, StoredVectors):
            vectors: NDArray[np.float32] | StoredVectors = self.vectors.of_views(chosen)
        else:
            vectors = np.take_along_axis(self.vectors, chosen[:, :, None], axis=1)
        weights = np.take_along_axis(self.weights, chosen, axis=1)
        return ImageTargets(vectors, np.take_along_axis(self.bought, chosen, axis=1), weights)


def join_image_targets(
    cache_keys: Sequence[Sequence[str]],
    fetch: Fetch,
    *,
    dimension: int,
    names: Sequence[str],
    allow_missing: bool = False,
) -> ImageTargets:
    """Look up the embedding of every view.

    Args:
        cache_keys: `K` keys for each of `N` samples; the same key twice (the same pixels) is fine.
        fetch: Gives vectors `[D]`, in any scale; asked for some keys at a time.
        dimension: The teacher's width `D`.
        names: `N` file names, for messages.
        allow_missing: Leave unbought views at zero and say so in `bought`, instead of refusing.

    Raises:
        CacheError: A view was not bought, or its vector has another width.
    """
    count = len(cache_keys[0]) if cache_keys else 0
    joined = np.zeros((len(cache_keys), count, dimension), dtype=np.float32)
    bought = np.zeros((len(cache_keys), count), dtype=np.bool_)
    vectors: Mapping[str, NDArray[np.floating]] = {}
    for row, (keys, name) in enumerate(zip(cache_keys, names, strict=True)):
        if row % _ROWS_AT_ONCE == 0:
            vectors = fetch(list(chain.from_iterable(cache_keys[row : row + _ROWS_AT_ONCE])))
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
    _scale(joined.reshape(-1, dimension), bought.reshape(-1))
    return ImageTargets.of_bought(joined, bought)


def _scale(vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
    """Scale the known ones of vectors `[n, D]` to length one, in place."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block, of_block = vectors[start : start + _ROWS_AT_ONCE], known[start : start + _ROWS_AT_ONCE]
        if of_block.any():
            block[of_block] = unit_rows(block[of_block])


def borrow_from_same_image(targets: ImageTargets, lenders: int | None = None) -> ImageTargets:
    """Give every view without a target the mean of those of its own image, as their trust weighs them.

    A view shows what its image shows, so that a teacher answers alike on both; the student learns to do so too, also
    on views that are strange to it, and no query is spent on them.
    They weigh the mean of what they borrow. A sample of which no lending view has a target gets none.
    The first `lenders` views lend, or all.
    """
    of_lenders = targets.weights[:, :lenders]
    lending = (of_lenders > 0).sum(axis=1, keepdims=True)  # [N, 1]
    fills = (targets.weights == 0) & (lending > 0)
    if not fills.any():
        return targets
    own = in_memory(targets.vectors)
    mean = np.einsum("nk,nkd->nd", of_lenders, own[:, :lenders])
    weight = of_lenders.sum(axis=1, keepdims=True) / np.maximum(lending, 1)
    vectors = own if own is not targets.vectors else own.copy()  # stored ones are read into an array of its own
    weights = np.where(fills, weight, targets.weights).astype(np.float32)
    _scale(mean, lending[:, 0] > 0)
    for view in range(vectors.shape[1]):  # one at a time: all at once would take as much memory again
        vectors[fills[:, view], view] = mean[fills[:, view]]
    return ImageTargets(vectors, targets.bought, weights, borrowing=int(fills.sum()))


def views_with_targets(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the numbers of the views of each sample that have a target, `[N, J]`, as many as the sample with most has.

    They begin again where a sample has fewer of them. A sample that has none keeps all its views, and `J` is `K` then.

    Args:
        weights: `[N, K]` of the targets.
    """
    known = weights > 0
    counts = known.sum(axis=1)  # [N]
    order = np.argsort(~known, axis=1, kind="stable")
    shown = np.where(counts > 0, counts, known.shape[1])
    turns = np.arange(shown.max()) % shown[:, None]
    return np.take_along_axis(order, turns, axis=1)


def weigh_by_agreement(
    targets: ImageTargets, classifier: EmbeddingMatrix, labels: NDArray[np.int64], styles: Sequence[Sequence[str]]
) -> ImageTargets:
    """Weigh each bought answer by its style's agreement with the labels; one that names another class counts nothing.

    An answer names the class whose text is nearest to it. A view without weight trains on its text alone.

    Args:
        targets: What was bought or imputed of `A` views of `N` images; imputed ones keep their weights.
        classifier: `[C, D]` text embeddings of the classes.
        labels: `[N]`.
        styles: `N` times `A` names of styles, empty for a view without one.
    """
    named = [(of_view @ classifier.T).argmax(axis=1) for of_view in in_memory(targets.vectors).swapaxes(0, 1)]
    agrees = np.stack(named, axis=1) == labels[:, None]
    weights, names = targets.weights.copy(), np.array(styles, dtype=np.str_).reshape(agrees.shape)
    for style in np.unique(names):
        asked = (names == style) & targets.bought
        if asked.any():
            weights[asked] = agrees[asked] * agrees[asked].mean()
    return replace(targets, weights=weights)
