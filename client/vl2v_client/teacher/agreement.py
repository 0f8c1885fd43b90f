"""Trust in bought answers, by what the teacher gets right on the training images: their labels are known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.teacher.targets import ImageTargets


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
    named = [(of_view @ classifier.T).argmax(axis=1) for of_view in targets.vectors.swapaxes(0, 1)]
    agrees = np.stack(named, axis=1) == labels[:, None]
    weights, names = targets.weights.copy(), np.array(styles, dtype=np.str_).reshape(agrees.shape)
    for style in np.unique(names):
        asked = (names == style) & targets.bought
        if asked.any():
            weights[asked] = agrees[asked] * agrees[asked].mean()
    return replace(targets, weights=weights)
