"""The teacher as a classifier: the row that every student is measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.teacher.text_classifier import unit_rows


def zero_shot_logits(
    image_embeddings: NDArray[np.float32], classifier: EmbeddingMatrix, *, logit_scale: float, logit_bias: float = 0.0
) -> NDArray[np.float32]:
    """Return `logit_scale * cos(img, txt_c) + logit_bias`.

    Args:
        image_embeddings: `[N, D]` of canonical views, in any scale.
        classifier: `[C, D]` unit text embeddings.
        logit_scale: The teacher's.
        logit_bias: The teacher's.

    Returns:
        `[N, C]` float32.
    """
    cosines = unit_rows(image_embeddings) @ classifier.T
    return (logit_scale * cosines + logit_bias).astype(np.float32)
