"""Which images a run trained on, selected with and was scored on: by name and content, whatever the folder holds later.

DomainBed's split shuffles a domain's files by their places, so one file more or less splits that domain anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasPath, BaseModel, Field, TypeAdapter, ValidationError

from vl2v_client.cache.memo import RunCache
from vl2v_client.core.errors import DataError, RunError
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split
from vl2v_client.evaluation.accuracy import Evaluation
from vl2v_client.planning.file_contents import hash_in_threads, read_files
from vl2v_client.runs.run_folder import CONFIG_FILE, IMAGES_FILE, RunFolder
from vl2v_client.student.model.spec import StudentCard


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


_IMAGES = TypeAdapter(RunImages)


def name_images(root: Path, split: Split, cache: RunCache) -> RunImages:
    """Return the images of a split.

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


class RecordedConfig(BaseModel):
    """What an evaluation reads of a run's configuration, which may be somebody else's."""

    root: Path = Field(validation_alias=AliasPath("data", "root"))
    prompts: tuple[str, ...] = Field(validation_alias=AliasPath("data", "prompts"))
    teacher_id: str = Field(validation_alias=AliasPath("teacher", "id"))
    ledger_id: str = Field(validation_alias=AliasPath("teacher", "ledger_id"))
    weights_sha: str = Field(validation_alias=AliasPath("teacher", "weights_sha"))


def recorded_config(folder: RunFolder) -> RecordedConfig:
    """Return the recorded configuration of a run.

    Raises:
        RunError: An entry is missing or has a wrong type.
    """
    try:
        return RecordedConfig.model_validate(folder.config)
    except ValidationError as error:
        entry = "/".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise RunError(
            f"{folder.path / CONFIG_FILE} has no right entry {entry!r}: put back a copy of it, or run again"
        ) from error


TRAINED_ON = "trained on"
HOLD_OUT = "source, hold-out"
UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class DomainScore:
    """One domain's row: accuracies 0 to 1, that of the teacher zero-shot, `None` if it was not asked.

    `role` is what the student's training had to do with these images.
    """

    domain: str
    role: str
    images: int
    student: float
    teacher: float | None


@dataclass(frozen=True)
class ScoredImages:
    """What is scored.

    Attributes:
        root: Folder of the data set.
        samples: Images below it, `[N]`.
        roles: What the student's training had to do with each of them, `[N]`.
        record: Images of the run if these are they; `None` for another data set.
    """

    root: Path
    samples: tuple[Sample, ...]
    roles: tuple[str, ...]
    record: RunImages | None

    @property
    def unseen(self) -> tuple[Sample, ...]:
        """Images that the student's training has not seen."""
        return tuple(sample for sample, role in zip(self.samples, self.roles, strict=True) if role == UNSEEN)

    def scores(self, right: NDArray[np.bool_], teacher: Evaluation | None) -> Iterator[DomainScore]:
        """Yield the rows, by domain and role.

        Args:
            right: Whether the student is right about each image, `[N]`.
            teacher: The teacher on the unseen images; `None` if it was not asked.
        """
        groups = [(sample.domain, role) for sample, role in zip(self.samples, self.roles, strict=True)]
        for domain, role in sorted(set(groups)):
            mine = right[[group == (domain, role) for group in groups]]
            zero_shot = None if teacher is None or role != UNSEEN else teacher.by_domain[domain].accuracy
            yield DomainScore(domain, role, len(mine), float(mine.mean()), zero_shot)


def choose_images(folder: RunFolder, own: Path, card: StudentCard, data: Path | None) -> ScoredImages:
    """Choose what to score: the images of its own data set that judged the run, or all images of another one, `data`.

    Raises:
        DataError: The data set cannot be used, has other classes, or has lost or changed images of the run.
        RunError: The run is not finished.
    """
    record = read_images(folder)
    dataset = open_dataset(data or own)
    if dataset.class_names != card.class_names:
        raise DataError(
            f"{data or own} has the classes {', '.join(dataset.class_names)}; the student has "
            f"{', '.join(card.class_names)}: give a data set with the same class folders"
        )
    if data is None or data.resolve() == own:
        return _own_images(dataset, record)
    roles = dict.fromkeys(record.validation.values(), HOLD_OUT) | dict.fromkeys(record.train.values(), TRAINED_ON)
    hashes = hash_in_threads([str(sample.path) for sample in dataset.samples])
    return ScoredImages(dataset.root, dataset.samples, tuple(roles.get(file_sha, UNSEEN) for file_sha in hashes), None)


def _own_images(dataset: DomainDataset, record: RunImages) -> ScoredImages:
    found = {str(sample.path.relative_to(dataset.root)): sample for sample in dataset.samples}
    wanted = record.validation | record.target
    if not wanted:
        raise DataError(f"the run was scored on no image of {dataset.root}: score another folder with data.root")
    kept = [name for name in wanted if name in found]
    now = dict(zip(kept, hash_in_threads([str(found[name].path) for name in kept]), strict=True))
    lost = [name for name in wanted if now.get(name) != wanted[name]]
    if lost:
        raise DataError(
            f"{dataset.root} has lost or changed {len(lost):,} images that the run was scored on, such as {lost[0]}: "
            "put them back, or score another data set"
        )
    roles = tuple(UNSEEN if name in record.target else HOLD_OUT for name in wanted)
    return ScoredImages(dataset.root, tuple(found[name] for name in wanted), roles, record)
