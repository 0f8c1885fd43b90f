"""Which images a run trained on, selected with and was judged by: by name and content, whatever the folder holds later.

DomainBed's split shuffles a domain's files by their places, so one file more or less splits that domain anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import RunError
from vl2v_client.core.values import Sample
from vl2v_client.data.splits import Split
from vl2v_client.planning.queries import read_files
from vl2v_client.runs.run_folder import IMAGES_FILE, RunFolder


@dataclass(frozen=True)
class RunImages:
    """The images of a finished run.

    Attributes:
        train: Hash of each file's bytes, by its path below the data set.
        validation: Hashes of the source domains' hold-out.
        target: Hashes of the whole unseen domain, in the split's order.
        target_in: Number of the first of `target` that DomainBed's tables report.
    """

    train: dict[str, str]
    validation: dict[str, str]
    target: dict[str, str]
    target_in: int

    def is_judged_like(self, other: RunImages) -> bool:
        """Return whether two runs were tested on the same images."""
        return (self.target, self.target_in) == (other.target, other.target_in)


_IMAGES = TypeAdapter(RunImages)


def name_images(root: Path, split: Split, cache: EmbeddingCache) -> RunImages:
    """Return the images of a split.

    Args:
        root: Folder of the data set.
        split: Split of a run.
        cache: Remembers hashes.

    Raises:
        DataError: An image cannot be read.
    """

    def hashes(samples: Sequence[Sample]) -> dict[str, str]:
        contents = read_files((sample.path for sample in samples), cache)
        return {str(path.relative_to(root)): content.file_sha for path, content in contents.items()}

    return RunImages(hashes(split.train), hashes(split.validation), hashes(split.target), len(split.target_in))


def keep_images(folder: RunFolder, images: RunImages) -> None:
    """Write down the images of a run that is done, after its report: the report is of these or of earlier ones.

    Raises:
        CacheError: The folder cannot be written.
    """
    folder.keep(IMAGES_FILE, asdict(images))


def read_images(folder: RunFolder) -> RunImages:
    """Return what `keep_images` wrote.

    Raises:
        RunError: Nothing yet.
    """
    images = find_images(folder)
    if images is None:
        raise RunError(f"{folder.path} holds no finished run: run `vl2v-client distill` with its settings again")
    return images


def find_images(folder: RunFolder) -> RunImages | None:
    """Return what `keep_images` wrote; None if nothing yet.

    Raises:
        RunError: It is damaged.
    """
    record = folder.recall(IMAGES_FILE)
    if record is None:
        return None
    try:
        return _IMAGES.validate_python(record)
    except ValidationError as error:
        raise RunError(
            f"{folder.path / IMAGES_FILE} is damaged: put back a copy of it, or run `vl2v-client distill` again"
        ) from error
