"""Calibration: one temperature, fitted on source validation alone, and how far confidence is from accuracy.

Sources: Guo et al., ICML 2017, arXiv 1706.04599 (temperature scaling, expected calibration error).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vl2v_client.evaluation.accuracy import log_probabilities

_SMALLEST, _LARGEST = 1e-2, 1e3
_GOLDEN = (math.sqrt(5) - 1) / 2
_ROUNDS = 60


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature in 0.01 .. 1000 that minimises the negative log-likelihood, by golden-section search.

    The likelihood counts one label more, spread over all classes: a hold-out without a single error would otherwise
    push the temperature to its lower bound (Platt, 1999, smooths his targets alike). It has one minimum in the inverse
    temperature, so the search cannot miss it.

    Args:
        logits: `[N, C]` on source validation.
        labels: `[N]`.
    """
    low, high = math.log(_SMALLEST), math.log(_LARGEST)
    for _ in range(_ROUNDS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        losses = (_smoothed_loss(logits, labels, math.exp(place)) for place in (left, right))
        low, high = (low, right) if next(losses) < next(losses) else (left, high)
    return math.exp((low + high) / 2)


def _smoothed_loss(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    logs = log_probabilities(logits, temperature)
    rows = np.arange(len(labels))
    return -float(logs[rows, labels].sum() + logs.mean()) / (len(labels) + 1)


def calibration_error(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0, *, bins: int = 15
) -> float:
    """Return expected calibration error: the mean gap between confidence and accuracy over equal bins of confidence."""
    confidence = np.exp(log_probabilities(logits, temperature)).max(axis=1)
    right = logits.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [abs(confidence[places == bin_].sum() - right[places == bin_].sum()) for bin_ in range(bins)]
    return float(sum(gaps)) / len(labels)
