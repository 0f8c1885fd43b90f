"""Class probabilities of image files; a file that cannot be read is a row of its own, and the rest goes on."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import PixelSource, RGBImage
from vl2v_client.data.folder import IMAGE_SUFFIXES, list_images
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import log_probabilities

_PIXELS_IN_MEMORY = 128 * 224**2


class ImageClassifier(Protocol):
    """What classifies images: a student, or a graph that was made of one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the `C` classes, in the order of the logits."""

    @property
    def view_size(self) -> int:
        """Images are rendered at this size."""

    @property
    def largest_size(self) -> int:
        """Size of an image where it takes the most memory."""

    @property
    def temperature(self) -> float:
        """Probabilities are `softmax(logits / temperature)`."""

    def logits(self, pixels: PixelSource, /) -> NDArray[np.float32]:
        """Return logits `[N, C]` of views `[N, S, S, 3]` uint8."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to classify, or what was named and led to none.

    Attributes:
        path: Path of the file, or the words that named it.
        error: Why there is none.
    """

    path: str
    error: str | None = None


@dataclass(frozen=True)
class FilePrediction:
    """What the student says about one file.

    Attributes:
        path: Path of the file.
        probabilities: `[C]` float64, at the card's temperature, in the order of its classes; `None` if there are none.
        error: Why there are none, with the remedy.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: str | None = None


def find_files(named: Iterable[str]) -> list[FoundFile]:
    """Return the image files of paths, folders and glob patterns, in their order.

    A folder is walked as a data set is, and a file that is named itself may have any suffix. A name that leads to no
    file is kept with the reason.
    """
    return [found for name in named for found in _find(name)]


def _find(name: str) -> Iterator[FoundFile]:
    path = Path(name)
    try:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                raise DataError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}): give files or another folder")
            yield from map(FoundFile, inside)
        elif path.exists() or not glob.has_magic(name):
            yield FoundFile(str(path))
        else:
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise DataError(f"no file matches {name}: check the pattern")
            for match in matches:
                yield from _find(match)
    except (DataError, OSError, ValueError) as error:  # ValueError: of a name that no file can have
        yield FoundFile(name, str(error))


def classify_files(
    model: ImageClassifier, files: Sequence[FoundFile], *, batch_size: int = 128, progress: Progress = silent
) -> Iterator[FilePrediction]:
    """Classify image files one after another, through the very steps that the student was scored with.

    At most `batch_size` images are in memory at a time; fewer if they are larger than 224 pixels.

    Raises:
        DataError: The model's answer is not finite; the images before its batch have been classified.
    """
    done, coming = 0, iter(files)
    batch_size = images_at_once(model, batch_size)
    while batch := list(islice(coming, batch_size)):
        read = [_read(file, model.view_size) for file in batch]
        answers = iter(_answers(model, batch, read))
        for file, pixels in zip(batch, read, strict=True):
            if isinstance(pixels, str):
                yield FilePrediction(file.path, None, pixels)
            else:
                yield FilePrediction(file.path, next(answers))
        done += len(batch)
        progress("predict", done, len(files))


def _read(file: FoundFile, size: int) -> RGBImage | str:
    """Return the pixels `[size, size, 3]` of a file, or why there are none."""
    if file.error is not None:
        return file.error
    try:
        return render_view(load_rgb(Path(file.path)), canonical_view(), size)
    except DataError as error:
        return str(error)
    except ValueError as error:  # of a path that no file can have
        return f"{file.path} cannot be read ({error}): check its path"


def _answers(model: ImageClassifier, batch: Sequence[FoundFile], read: Sequence[RGBImage | str]) -> NDArray[np.float64]:
    """Return `[N, C]`, a row for each file of the batch that could be read."""
    good = [(file, pixels) for file, pixels in zip(batch, read, strict=True) if not isinstance(pixels, str)]
    if not good:
        return np.zeros((0, len(model.class_names)))
    pixels = np.stack([pixels for _, pixels in good])
    return class_probabilities(model, pixels, [file.path for file, _ in good])


def class_probabilities(model: ImageClassifier, pixels: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.float64]:
    """Return `[N, C]`, at the model's temperature, of whole images that are rendered at its view size.

    Takes pixels `[N, S, S, 3]`, and `N` names for a message.

    Raises:
        DataError: An answer is not finite.
    """
    logits = model.logits(pixels)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        name = names[int(np.argmin(finite))]
        raise DataError(f"the student's answer to {name} is not finite: its weights are of no use; export it again")
    return np.exp(log_probabilities(logits, model.temperature))


def images_at_once(model: ImageClassifier, batch_size: int) -> int:
    """Return how many images are in memory at a time: fewer than `batch_size` if they are larger than 224 pixels."""
    return max(1, min(batch_size, _PIXELS_IN_MEMORY // model.largest_size**2))
