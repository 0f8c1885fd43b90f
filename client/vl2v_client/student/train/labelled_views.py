"""Labelled views as arrays: what training and evaluation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import Sample
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence


@dataclass(frozen=True)
class LabelledViews:
    """`K` views of each of `N` samples.

    Attributes:
        pixels: `[N, K, S, S, 3]` uint8.
        labels: `[N]` int64.
        domains: `[N]` names.
        of: Names the pixels, so that a run cannot resume on other ones.
    """

    pixels: ViewPixels | NDArray[np.uint8]
    labels: NDArray[np.int64]
    domains: tuple[str, ...]
    of: str = ""

    @property
    def view_count(self) -> int:
        """`K`."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        """`S`."""
        return int(self.pixels.shape[2])

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int = 1) -> ViewSequence:
        """Return the first views of each sample one after the other, `[N * count, S, S, 3]`."""
        return ViewSequence(self.pixels, count)

    def at(self, size: int) -> LabelledViews:
        """Return the same views at another size.

        Raises:
            ValueError: These are plain pixels of another size.
        """
        if isinstance(self.pixels, ViewPixels):
            return replace(self, pixels=self.pixels.at(size))
        if size != self.size:
            raise ValueError(f"pixels of size {self.size} cannot be had at size {size}")
        return self


def labelled_views(pixels: ViewPixels, samples: Sequence[Sample]) -> LabelledViews:
    """Join the pixels of samples with their labels and domains, row by row."""
    labels = np.array([sample.class_index for sample in samples], dtype=np.int64)
    return LabelledViews(pixels, labels, tuple(sample.domain for sample in samples), pixels.of)
