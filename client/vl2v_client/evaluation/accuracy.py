"""Accuracy, by domain and by class, and log-likelihood of logits against labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Count:
    """How many of how many were right."""

    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share that was right, 0 to 1."""
        return self.right / self.total


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a set of images.

    Attributes:
        overall: Every image counts alike.
        by_domain: Counts of each domain, sorted.
        nll: Mean negative log-likelihood of the labels, in nats.
        confusion: `[C, C]` counts, row = label, column = prediction.
    """

    overall: Count
    by_domain: dict[str, Count]
    nll: float
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of all images that was right, 0 to 1."""
        return self.overall.accuracy

    @property
    def domain_mean(self) -> float:
        """Mean of the domains' accuracies: every domain counts alike, as in DomainBed."""
        return sum(count.accuracy for count in self.by_domain.values()) / len(self.by_domain)


def evaluate(logits: NDArray[np.float32], labels: NDArray[np.int64], domains: Sequence[str]) -> Evaluation:
    """Score logits `[N, C]` against labels `[N]` of the domains `[N]`.

    Raises:
        DataError: There is nothing to score.
    """
    if len(labels) == 0:
        raise DataError("there are no images to evaluate on: choose a target domain or another folder")
    predictions = logits.argmax(axis=1)
    right = predictions == labels
    names = np.asarray(domains)
    counts = {
        str(domain): Count(int(right[names == domain].sum()), int((names == domain).sum()))
        for domain in sorted(set(domains))
    }
    confusion = np.zeros((logits.shape[1], logits.shape[1]), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return Evaluation(Count(int(right.sum()), len(labels)), counts, negative_log_likelihood(logits, labels), confusion)


@dataclass(frozen=True)
class Choices:
    """The likeliest class of each image.

    Attributes:
        classes: `[N]` int64.
        probabilities: `[N]` float64, of those classes, 0 to 1.
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def choose(logits: NDArray[np.float32], temperature: float = 1.0) -> Choices:
    """Take the likeliest class of each row of `[N, C]` logits, with its probability at `temperature`."""
    return Choices(logits.argmax(axis=1), np.exp(log_probabilities(logits, temperature)).max(axis=1))


def negative_log_likelihood(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Return mean over `[N]` of `-log softmax(logits / temperature)[label]`, in nats."""
    chosen = log_probabilities(logits, temperature)[np.arange(len(labels)), labels]
    return -float(chosen.mean())


def log_probabilities(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return `log softmax(logits / temperature)`, `[N, C]`."""
    scaled = logits.astype(np.float64) / temperature
    shifted: NDArray[np.float64] = scaled - scaled.max(axis=1, keepdims=True)
    normaliser: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - normaliser
