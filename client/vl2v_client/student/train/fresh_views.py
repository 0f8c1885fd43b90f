"""Fresh views: drawn, rendered and shown to the teacher when a step needs them, as the published loop does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import EmbeddingMatrix

FRESH_VIEW_NUMBERS = 2**62
"""A fresh view has a number below this, drawn like a stored one's: as good as never the same twice."""


class FreshViews(Protocol):
    """The views that no store holds. Called in any thread; the same question has the same answer, to the bit."""

    @property
    def of(self) -> str:
        """Names all that decides pixels and answers, so that a run cannot resume on others."""

    def render(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the views of those numbers of the images in those training rows, `[B, S, S, 3]`."""

    def ask(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        """Return what the teacher says of them, `[B, D]`."""
