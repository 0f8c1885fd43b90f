"""Labelled views as arrays: what training and evaluation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import Sample
from vl2v_client.data.renders import RenderStore


@dataclass(frozen=True)
class LabelledViews:
    """`K` views of each of `N` samples.

    Attributes:
        pixels: `[N, K, S, S, 3]` uint8, at the teacher's input size.
        labels: `[N]` int64.
        domains: `[N]` names.
        of: Names the pixels, so that a run cannot resume on other ones.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    domains: tuple[str, ...]
    of: str = ""

    @property
    def view_count(self) -> int:
        """`K`."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.labels)


def labelled_views(store: RenderStore, samples: Sequence[Sample]) -> LabelledViews:
    """Join rendered pixels with the samples that they were rendered from, row by row.

    Raises:
        ValueError: The store holds another number of rows.
    """
    if len(store.pixels) != len(samples):
        raise ValueError(f"{len(store.pixels)} rendered rows for {len(samples)} samples")
    labels = np.array([sample.class_index for sample in samples], dtype=np.int64)
    return LabelledViews(store.pixels, labels, tuple(sample.domain for sample in samples), store.of)
