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
from vl2v_client.planning.hashing import read_files
from vl2v_client.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunImages:
    """The images of a finished run.

    Attributes:
        train: hash of each file's bytes, by its path below the data set.
        validation: likewise, of the source domains' hold-out.
        target: likewise, of the whole unseen domain, in the split's order.
        target_in: so many of `target`, the first, DomainBed's tables report.
    """

    train: dict[str, str]
    validation: dict[str, str]
    target: dict[str, str]
    target_in: int

    def is_judged_like(self, other: RunImages) -> bool:
        """Whether two runs were tested on the same images."""
        return (self.target, self.target_in) == (other.target, other.target_in)


_IMAGES = TypeAdapter(RunImages)


def name_images(root: Path, split: Split, cache: EmbeddingCache) -> RunImages:
    """The images of a split.

    Args:
        root: of the data set.
        split: of a run.
        cache: remembers hashes.

    Raises:
        DataError: an image cannot be read.
    """

    def hashes(samples: Sequence[Sample]) -> dict[str, str]:
        contents = read_files((sample.path for sample in samples), cache)
        return {str(path.relative_to(root)): content.file_sha for path, content in contents.items()}

    return RunImages(hashes(split.train), hashes(split.validation), hashes(split.target), len(split.target_in))


def keep_images(folder: RunFolder, images: RunImages) -> None:
    """Write down the images of a run that is done, after its report: the report is of these or of earlier ones.

    Raises:
        CacheError: the folder cannot be written.
    """
    folder.keep(folder.images, asdict(images))


def read_images(folder: RunFolder) -> RunImages:
    """What `keep_images` wrote.

    Raises:
        RunError: nothing yet.
    """
    images = find_images(folder)
    if images is None:
        raise RunError(f"{folder.path} holds no finished run: run `vl2v-client distill` with its settings again")
    return images


def find_images(folder: RunFolder) -> RunImages | None:
    """What `keep_images` wrote; None if nothing yet.

    Raises:
        RunError: it is damaged.
    """
    record = folder.recall(folder.images)
    if record is None:
        return None
    try:
        return _IMAGES.validate_python(record)
    except ValidationError as error:
        raise RunError(
            f"{folder.images} is damaged: put back a copy of it, or run `vl2v-client distill` again"
        ) from error
