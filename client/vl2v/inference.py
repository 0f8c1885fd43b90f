"""A finished student in Python: images in, classes and calibrated probabilities out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from vl2v.inputs import ImageInput, image_query, is_image, render
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.evaluation.accuracy import log_probabilities
from vl2v_client.export.weights import load_bundle
from vl2v_client.planning.queries import ImageQuery, PictureQuery
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard
from vl2v_client.student.train.devices import resolve_device

_Image = TypeVar("_Image", bound=ImageInput)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a student says of one image.

    Attributes:
        label: Name of the likeliest class.
        probability: Probability of that class, 0 to 1, at the temperature fitted on source validation.
        probabilities: `[C]` float64, of every class, in the order of `Student.class_names`; they sum to 1.
    """

    label: str
    probability: float
    probabilities: NDArray[np.float64]


class Student:
    """A student that was exported, ready to classify.

    Args:
        bundle: Network and card, from `vl2v_client.export.weights.load_bundle`.

    Attributes:
        bundle: Network and card.
    """

    def __init__(self, bundle: StudentBundle) -> None:
        self.bundle = bundle

    @property
    def card(self) -> StudentCard:
        """What the student is, and how it came about."""
        return self.bundle.card

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the `C` classes, in the order of the probabilities."""
        return self.bundle.card.class_names

    @overload
    def predict(self, images: list[_Image] | tuple[_Image, ...], *, batch_size: int = ...) -> list[Prediction]: ...

    @overload
    def predict(self, images: ImageInput, *, batch_size: int = ...) -> Prediction: ...

    def predict(
        self, images: ImageInput | Sequence[ImageInput], *, batch_size: int = 64
    ) -> Prediction | list[Prediction]:
        """Classify an image, or a list of images.

        Args:
            images: One image (PIL, array `[H, W, 3]` uint8, or path), or a list of them.
            batch_size: Images in memory at a time, at the student's input size.

        Returns:
            A prediction for one image; for a list, a list in its order.

        Raises:
            DataError: An image cannot be read; the message says which.
        """
        if isinstance(images, list | tuple):
            queries = [image_query(image, f"image {place}") for place, image in enumerate(images)]
            starts = range(0, len(queries), batch_size)
            return [one for start in starts for one in self._classify(queries[start : start + batch_size])]
        if not is_image(images):
            raise UsageError(f"a {type(images).__name__} is no image and no list of them")
        return self._classify([image_query(images, "the image")])[0]  # type: ignore[arg-type]

    def _classify(self, queries: Sequence[ImageQuery | PictureQuery]) -> list[Prediction]:
        pixels = np.stack([render(query, self.card.view_size) for query in queries])  # [B, S, S, 3]
        logits = self.bundle.classifier.logits(pixels)  # [B, C]
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            name = queries[int(np.argmin(finite))].name
            raise DataError(f"the student's answer to {name} is not finite: its weights are of no use; export it again")
        probabilities = np.exp(log_probabilities(logits, self.card.temperature))
        return [
            Prediction(self.class_names[place], float(of_one[place]), of_one)
            for of_one, place in zip(probabilities, logits.argmax(axis=1).tolist(), strict=True)
        ]


def load(folder: str | os.PathLike[str], *, device: str = "cpu") -> Student:
    """Read a student from a run folder, or from the folder of the student itself. Needs no vendor.

    It may be a stranger's: nothing is executed or fetched.

    Args:
        folder: The folder.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`.

    Raises:
        DataError: There is no student, or it is damaged.
        UsageError: There is no such device, or the student needs a package that is not installed.
    """
    path = Path(folder)
    inside = path / "student"
    return Student(load_bundle(inside if inside.is_dir() else path, device=resolve_device(device)))
