"""The predictions of a run on its unseen domain, in `predictions.csv`, for comparisons image by image."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from vl2v_client.core.errors import CacheError, RunError

_FILE = "predictions.csv"


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """One line: a classifier on an image of the unseen domain.

    Attributes:
        classifier: Name of its row in the report.
        path: Path of the image below the data set's folder, with `/`.
        label: Name of the image's class.
        predicted: Name of the likeliest class.
        probability: Probability of that class, 0 to 1; a student's at the temperature fitted on source validation.
    """

    classifier: str
    path: str
    label: str
    predicted: str
    probability: float


_COLUMNS = [field.name for field in fields(ImagePrediction)]


def write_predictions(folder: Path, rows: Iterable[ImagePrediction]) -> None:
    """Write the file whole, or leave the one that is there.

    Raises:
        CacheError: The folder cannot be written.
    """
    path = folder / _FILE
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows((*astuple(row)[:-1], f"{row.probability:.6f}") for row in rows)
        partial.replace(path)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error


def read_predictions(folder: Path) -> list[ImagePrediction]:
    """Read the file in its order; an empty list if there is none.

    Raises:
        RunError: The file is damaged.
    """
    file_path = folder / _FILE
    if not file_path.exists():
        return []
    try:
        with file_path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if header != _COLUMNS:
            raise ValueError("other columns")
        return [
            ImagePrediction(classifier, path, label, predicted, float(probability))
            for classifier, path, label, predicted, probability in lines
        ]
    except (OSError, ValueError) as error:
        raise RunError(f"{file_path} is damaged: remove it, then run `vl2v-client distill` again") from error
