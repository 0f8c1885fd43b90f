"""Predictions for use: image files in, class names and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vl2v_client.core.errors import DataError
from vl2v_client.data.views import canonical_view, load_rgb, render_view
from vl2v_client.evaluation.accuracy import log_probabilities
from vl2v_client.student.model.bundle import StudentBundle

_PIXELS_IN_MEMORY = 128 * 224**2


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the student says about one image.

    Attributes:
        path: The image.
        class_name: The likeliest class.
        class_index: Its place among the card's class names.
        probability: Probability of that class, at the card's temperature.
    """

    path: Path
    class_name: str
    class_index: int
    probability: float


def predict(bundle: StudentBundle, images: Iterable[Path], *, batch_size: int = 128) -> Iterator[Prediction]:
    """Classify image files one after another, through the very steps that the student was scored with.

    Args:
        bundle: Student from `export.weights.load_bundle`.
        images: Files of any kind that `load_rgb` reads.
        batch_size: Images in memory at a time; fewer if they are larger than 224 pixels.

    Raises:
        DataError: An image cannot be read, or the student's answer is not finite; the images before its batch have
            been predicted.
    """
    paths, size = iter(images), max(bundle.card.view_size, bundle.card.student.input.size)
    batch_size = max(1, min(batch_size, _PIXELS_IN_MEMORY // size**2))
    while batch := list(islice(paths, batch_size)):
        yield from _predict_batch(bundle, batch)


def _predict_batch(bundle: StudentBundle, paths: Sequence[Path]) -> Iterator[Prediction]:
    card = bundle.card
    pixels = np.stack([render_view(load_rgb(path), canonical_view(), card.view_size) for path in paths])
    logits = bundle.classifier.logits(pixels)
    if not np.isfinite(logits).all():
        first = paths[int(np.argmin(np.isfinite(logits).all(axis=1)))]
        raise DataError(f"the student's answer to {first} is not finite: its weights are of no use; export it again")
    probabilities = np.exp(log_probabilities(logits, card.temperature))
    for path, row in zip(paths, probabilities, strict=True):
        index = int(row.argmax())
        yield Prediction(path, card.class_names[index], index, float(row[index]))
