"""The zero-shot classifier: one unit vector per class, made of the teacher's text embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import EmbeddingMatrix


def unit_rows(vectors: ArrayLike) -> NDArray[np.float32]:
    """Return vectors along the last axis, `[..., D]`, scaled to length one, as float32.

    Raises:
        DataError: A vector is zero or not finite.
    """
    array = np.asarray(vectors, dtype=np.float64)
    lengths: NDArray[np.float64] = np.linalg.norm(array, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise DataError("an embedding is zero or not finite: verify the cache, then buy it again")
    scaled: NDArray[np.float64] = array / lengths
    return scaled.astype(np.float32)


def zero_shot_classifier(text_embeddings: ArrayLike) -> EmbeddingMatrix:
    """Average the unit embeddings of each class's templates and scales the average to length one, as CLIP does.

    Args:
        text_embeddings: `[C, T, D]`, of `T` templates for each of `C` classes, in any scale.

    Returns:
        `[C, D]` float32 of unit rows, in the order of the classes.
    """
    return unit_rows(unit_rows(text_embeddings).astype(np.float64).mean(axis=1))
