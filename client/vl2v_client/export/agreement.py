"""Whether what was exported answers as the student does."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import RunError

TOLERANCE = 1e-4
"""Largest difference of probabilities. Classes whose probabilities differ by less are equally likely."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """An export and the student on the same images: each image has the same likeliest class.

    Attributes:
        images: Number of images.
        largest: Largest difference of a probability.
        mean: Mean difference of the likeliest class's probability.
        exact: Whether the probabilities were to be the same.
    """

    images: int
    largest: float
    mean: float
    exact: bool


def compare(what: str, found: NDArray[np.float64], wanted: NDArray[np.float64], *, exact: bool = True) -> Agreement:
    """Compare probabilities `[N, C]` of an export with the student's.

    Args:
        what: Name of the export in errors.
        found: The export's.
        wanted: The student's.
        exact: Whether the probabilities are to be the same, and not only the likeliest class.

    Raises:
        RunError: They do not agree.
    """
    rows = np.arange(len(wanted))
    choices = found.argmax(axis=1)
    others = int((wanted.max(axis=1) - wanted[rows, choices] > TOLERANCE).sum())
    gaps = np.abs(found - wanted)
    largest = float(gaps.max())
    if others or not np.isfinite(gaps).all() or (exact and largest > TOLERANCE):
        raise RunError(
            f"{what} does not answer as the student does: another class for {others:,} of {len(wanted):,} images, and "
            f"probabilities that differ by {largest:.1e}: nothing was exported; report this, and use another format"
        )
    return Agreement(len(wanted), largest, float(gaps[rows, wanted.argmax(axis=1)].mean()), exact)
