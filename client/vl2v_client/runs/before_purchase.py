"""What comes before a purchase: the plan, and a trial of all that could fail later, so that nothing is paid in vain."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vl2v_client.core.errors import ClientError, DataError, RunError
from vl2v_client.core.progress import Notify, Progress, format_seconds
from vl2v_client.core.values import child_seed
from vl2v_client.data.folder import DomainDataset, is_hidden, open_dataset
from vl2v_client.data.layout import refuse_one_class
from vl2v_client.data.splits import split
from vl2v_client.data.view_pixels import ViewSequence, canonical_pixels
from vl2v_client.planning.choice import QueryChoice, RunQueries
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.run_folder import check_run_folder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import Source
from vl2v_client.student.loss.methods import WHITE_BOX
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.model.network import Student, build_student
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.frozen_features import FrozenFeatures

_COPIES = 8
"""Sets of weights in a run folder: two stages' checkpoints with Adam's moments, the averages, and the student."""

_BESIDE_BYTES = 64 * 2**20  # metrics, report and room for others
_IMAGES = 8
_Found = TypeVar("_Found")


def plan_tried_run(
    settings: RunSettings,
    source: Source,
    choice: QueryChoice,
    out: Path,
    record: Mapping[str, Any] | None,
    *,
    progress: Progress,
    notify: Notify,
) -> PlannedRun:
    """Try data set, target, student, device, folder and disk, plan, then show the student a few of the images.

    The API key and the disk of the cache are tried once it is known that something has to be bought.

    Args:
        settings: Settings of the run, or of each run of a sweep.
        source: Where its answers come from.
        choice: What decides its queries.
        out: Folder of the run, which need not exist.
        record: The configuration that it would keep, without the teacher; `None` leaves that to `claim_run_folder`.
        progress: Gets every step that takes time; the student's weights may have to be fetched first.
        notify: Gets how long the student takes for the run's views, and whether its steps draw as many.

    Raises:
        ClientError: As the first check that failed; the message has those of all. Nothing was planned.
    """
    dataset, student = _check(settings, out, record, progress)
    planned = source.plan(choice, listed=dataset, progress=progress)
    notify(_try_student(settings, planned.queries, student))
    return planned


def _check(
    settings: RunSettings, out: Path, record: Mapping[str, Any] | None, progress: Progress
) -> tuple[DomainDataset | None, Student | None]:
    """Return data set and student, on its device, once nothing is found wrong.

    The student is `None` if it comes with the local teacher.
    """
    faults: list[ClientError] = []

    def tried(check: Callable[[], _Found]) -> _Found | None:
        try:
            return check()
        except ClientError as error:
            faults.append(error)
            return None

    dataset = tried(partial(_check_data, settings.choice, out))
    if record is not None:
        tried(partial(check_run_folder, out, record))
    student = None
    if not WHITE_BOX.issuperset(settings.training.methods):
        student = tried(partial(_load_student, settings, progress))
    if student is not None:
        tried(partial(_check_disk, student, len(settings.training.methods), out))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise type(faults[0])("\n".join(map(str, faults)))
    return dataset, student


def _check_data(choice: QueryChoice, out: Path) -> DomainDataset:
    """Return the data set as it lies there, with the images that the run leaves out."""
    data, place = choice.data.resolve(), out.resolve()
    if data in place.parents and not any(map(is_hidden, place.relative_to(data).parts)):
        raise RunError(
            f"the run folder {out} lies in the data set {choice.data}, whose folders are domains or classes: choose "
            "another report.out"
        )
    dataset = open_dataset(choice.data)
    refuse_one_class(dataset.root, dataset.class_names)
    split(dataset.without(choice.skipped or ()), target_domain=choice.target_domain, seed=choice.seed)
    return dataset


def _load_student(settings: RunSettings, progress: Progress) -> Student:
    phase = "load student" if settings.student.tag is None else "fetch student"
    progress(phase, 0, 1)
    student = build_student(settings.student, outputs=1, seed=child_seed(settings.choice.seed, "initial weights"))
    progress(phase, 1, 1)
    return student


def _check_disk(student: Student, methods: int, out: Path) -> None:
    """Ask whether the disk holds what training will write; a run that goes on has written most of it."""
    weights_bytes = sum(value.numel() * value.element_size() for value in student.state_dict().values())
    needed = _COPIES * weights_bytes * methods + _BESIDE_BYTES
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    if free < needed and not any(out.glob("*/")):
        raise RunError(
            f"the disk of {nearest} has {free / 1e6:,.0f} MB left, and this run may write {needed / 1e6:,.0f} MB: "
            "make room, or choose another report.out"
        )


def _try_student(settings: RunSettings, queries: RunQueries, student: Student | None) -> str:
    """Show the student the first training images, and return what its time and its steps say of the run's views.

    Raises:
        DataError: The student does not run here, or its features are not finite.
    """
    if student is None:
        return f"The student is the {settings.exported_student.architecture}."
    name, train = settings.config.student.name, queries.split.train[:_IMAGES]
    device = resolve_device(settings.training.device)
    try:
        classifier = StudentClassifier(student.to(device), settings.student.input, None)
        frozen = FrozenFeatures(classifier, settings.training, None)
        images = ViewSequence(canonical_pixels(train, settings.student.input.size))
        for _ in range(2):  # the first time is slower
            start = time.perf_counter()
            list(frozen.parts(images, ()))
            seconds = (time.perf_counter() - start) / len(train)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"the student {name!r} does not run on {device} ({reason}): choose another with student.name, or another "
            "training.device; nothing was bought"
        ) from error
    views = len(queries.split.validation) + len(queries.split.train) * max(1, len(queries.views[0]))
    took = format_seconds(views * seconds)
    said = f"The student {name} takes about {took} on {device.type} to read this run's {views:,} views once."
    return said + _few_steps(settings, queries)


def _few_steps(settings: RunSettings, queries: RunQueries) -> str:
    """Return a sentence on a distill stage that draws fewer views than its largest source domain has; else nothing."""
    config, images = settings.training, Counter(sample.domain for sample in queries.split.train)
    drawn, views = config.drawn_views(config.distill_steps, 1), max(images.values()) * len(queries.views[0])
    if config.quick or settings.config.purchase.online or drawn >= views:
        return ""
    of_one = "" if len(images) == 1 else " of each source domain"
    has = f"there are {views:,}" if len(images) == 1 else f"the largest has {views:,}"
    steps = math.ceil(views / config.batch_size)
    return (
        f" Its distill stage draws {drawn:,} views{of_one}, and {has} to train on: with "
        f"training.distill_steps {steps} it draws as many."
    )
