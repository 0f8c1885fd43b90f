"""A finished student in Python: images in, classes and calibrated probabilities out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from vl2v.inputs import ImageInput, image_query, is_image
from vl2v.messages import keyword_names
from vl2v_client.core.errors import UsageError
from vl2v_client.evaluation.image_predictions import class_probabilities, images_at_once
from vl2v_client.export.exported import load_student
from vl2v_client.planning.queries import ImageQuery, PictureQuery
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

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
        bundle: Network and card, from `vl2v_client.export.exported.load_student`.

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
        self, images: ImageInput | Sequence[ImageInput], *, batch_size: int = 128
    ) -> Prediction | list[Prediction]:
        """Classify an image, or a list of images.

        Args:
            images: One image (PIL, array `[H, W, 3]` uint8, or path), or a list of them.
            batch_size: Images of a list that are classified at once; fewer if they are larger than 224 pixels.

        Returns:
            A prediction for one image; for a list, a list in its order.

        Raises:
            DataError: An image cannot be read; the message says which.
        """
        if isinstance(images, list | tuple):
            queries = [image_query(image, f"image {place}") for place, image in enumerate(images)]
            count = images_at_once(self.bundle, batch_size)
            starts = range(0, len(queries), count)
            return [one for start in starts for one in self._classify(queries[start : start + count])]
        if not is_image(images):
            raise UsageError(f"a {type(images).__name__} is no image and no list of them")
        return self._classify([image_query(images, "the image")])[0]

    def _classify(self, queries: Sequence[ImageQuery | PictureQuery]) -> list[Prediction]:
        pixels = np.stack([query.render(self.card.view_size) for query in queries])  # [B, S, S, 3]
        answers = class_probabilities(self.bundle, pixels, [query.name for query in queries])
        return [self._prediction(of_one) for of_one in answers]

    def _prediction(self, probabilities: NDArray[np.float64]) -> Prediction:
        likeliest = int(probabilities.argmax())
        return Prediction(self.class_names[likeliest], float(probabilities[likeliest]), probabilities)


def load(folder: str | os.PathLike[str], *, device: str = "cpu") -> Student:
    """Read the student in a run, or in what `export` wrote as `vl2v`, `hf` or `timm`. Needs no vendor.

    It may be a stranger's: nothing is executed or fetched.

    Args:
        folder: Folder of the run, of the student in it, or of the export.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`.

    Raises:
        DataError: There is no student, or it is damaged.
        UsageError: There is no such device, the student needs a package that is not installed, or it is an ONNX file.
    """
    with keyword_names():
        return Student(load_student(Path(folder), device))
