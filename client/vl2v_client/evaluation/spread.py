"""Accuracies over seeds: mean and standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean with its uncertainty.

    Attributes:
        mean: Mean of the values.
        standard_error: Its standard error, from the sample deviation; `None` for a single value.
    """

    mean: float
    standard_error: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard error of at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Spread(mean, math.sqrt(variance / len(values)))
