"""From logits to predictions, how often they are right, by domain and class, and how far their confidence is from that.

Calibration: Guo et al., ICML 2017, arXiv 1706.04599 (temperature scaling, expected calibration error). A run keeps its
predictions on its unseen domain in `predictions.csv`, and those on the hold-out beside it, for comparisons by image.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError, RunError
from vl2v_client.core.files import write_whole


@dataclass(frozen=True, slots=True)
class DomainAccuracy:
    """How many images a domain has, and the share of them that was right, 0 to 1."""

    images: int
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a set of images.

    Attributes:
        accuracy: Share of all images that was right, 0 to 1: every image counts alike.
        by_domain: Each domain's, sorted.
        confusion: `[C, C]` counts, row = label, column = prediction.
    """

    accuracy: float
    by_domain: dict[str, DomainAccuracy]
    confusion: NDArray[np.int64]

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
        str(domain): DomainAccuracy(int((names == domain).sum()), float(right[names == domain].mean()))
        for domain in sorted(set(domains))
    }
    confusion = np.zeros((logits.shape[1], logits.shape[1]), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return Evaluation(int(right.sum()) / len(labels), counts, confusion)


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


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature in 0.01 .. 1000 that minimises the negative log-likelihood, by golden-section search.

    The likelihood counts one label more, spread over all classes: a hold-out without a single error would otherwise
    push the temperature to its lower bound (Platt, 1999, smooths his targets alike). It has one minimum in the inverse
    temperature, so the search cannot miss it. Takes logits `[N, C]` and labels `[N]` of source validation.
    """
    return _best_temperature(lambda temperature: _smoothed_loss(logits, labels, temperature))


def match_temperature(logits: NDArray[np.float32], probabilities: NDArray[np.float64]) -> float:
    """Return the temperature in 0.01 .. 1000 at which logits `[N, C]` are nearest to probabilities `[N, C]`.

    Nearest by cross-entropy; found by the same search as `fit_temperature`.
    """

    def loss(temperature: float) -> float:
        return -float((probabilities * log_probabilities(logits, temperature)).sum())

    return _best_temperature(loss)


def _best_temperature(loss: Callable[[float], float]) -> float:
    low, high, golden = math.log(1e-2), math.log(1e3), (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        losses = (loss(math.exp(place)) for place in (left, right))
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


PREDICTIONS_FILE = "predictions.csv"
"""Of the unseen domain."""
HOLD_OUT_FILE = "predictions_hold_out.csv"
"""Of the source domains' hold-out, in the same form."""


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """One line: a classifier on an image that it was not trained on.

    Attributes:
        classifier: Name of its row in the report.
        path: Path of the image below the data set's folder, with `/`.
        predicted: Name of the likeliest class.
        probability: Probability of that class, 0 to 1; a student's at the temperature fitted on source validation.
    """

    classifier: str
    path: str
    label: str
    predicted: str
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether the likeliest class is the label."""
        return self.predicted == self.label


_COLUMNS = [field.name for field in fields(ImagePrediction)]


def write_predictions(folder: Path, rows: Iterable[ImagePrediction], name: str = PREDICTIONS_FILE) -> None:
    """Write the file of that name whole, or leave the one that is there.

    Raises:
        CacheError: The folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((*astuple(row)[:-1], f"{row.probability:.6f}") for row in rows)
    write_whole(folder / name, text.getvalue())


def read_predictions(folder: Path, name: str = PREDICTIONS_FILE) -> list[ImagePrediction]:
    """Read the file of that name in its order; an empty list if there is none.

    Raises:
        RunError: The file is damaged.
    """
    file_path = folder / name
    if not file_path.exists():
        return []
    try:
        with file_path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if header != _COLUMNS:
            raise ValueError("other columns")
        rows = [
            ImagePrediction(classifier, path, label, predicted, float(probability))
            for classifier, path, label, predicted, probability in lines
        ]
        if not all(0 <= row.probability <= 1 for row in rows):
            raise ValueError("a probability out of range")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{file_path} is damaged: remove it, then run `vl2v-client distill` again") from error
