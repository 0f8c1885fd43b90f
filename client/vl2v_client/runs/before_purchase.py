"""Everything that can fail after a purchase and can be tried before it, so that no query is paid for in vain."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import ClientError, RunError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import child_seed
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.layout import refuse_one_class
from vl2v_client.data.splits import split
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.runs.run_folder import check_run_folder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.model.network import build_student
from vl2v_client.student.train.devices import resolve_device

_COPIES = 8
"""Sets of weights in a run folder: two stages' checkpoints with Adam's moments, the averages, and the student."""

_BESIDE_BYTES = 64 * 2**20  # metrics, report and room for others


def check_before_purchase(
    settings: RunSettings, out: Path, record: Mapping[str, Any] | None, *, progress: Progress
) -> None:
    """Try data set, target, student, device, folder and disk, and say of all of them at once what is wrong.

    The API key and the disk of the cache are tried once it is known that something has to be bought.

    Args:
        settings: Settings of the run.
        out: Folder of the run, which need not exist.
        record: The configuration that it would keep, without the teacher; `None` leaves that to `claim_run_folder`.
        progress: Gets the student's weights, which may have to be fetched first.

    Raises:
        ClientError: As the first check that failed; the message has those of all.
    """
    checks: list[Callable[[], object]] = [
        partial(_check_data, settings.choice),
        *([] if record is None else [partial(check_run_folder, out, record)]),
        partial(_check_student, settings, out, progress),
    ]
    faults: list[ClientError] = []
    for check in checks:
        try:
            check()
        except ClientError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise type(faults[0])("\n".join(map(str, faults)))


def _check_data(choice: QueryChoice) -> None:
    dataset = open_dataset(choice.data).without(choice.skipped or ())
    refuse_one_class(dataset.root, dataset.class_names)
    split(dataset, target_domain=choice.target_domain, seed=choice.seed)


def _check_student(settings: RunSettings, out: Path, progress: Progress) -> None:
    """Load the student with its weights onto its device, and ask whether the disk holds what its training writes."""
    if settings.tower is not None:  # it comes with the local teacher, from whom nothing is bought
        return
    device = resolve_device(settings.training.device)
    phase = "load student" if settings.student.tag is None else "fetch student"
    progress(phase, 0, 1)
    student = build_student(settings.student, outputs=1, seed=child_seed(settings.choice.seed, "initial weights"))
    student.to(device)
    progress(phase, 1, 1)
    weights_bytes = sum(value.numel() * value.element_size() for value in student.state_dict().values())
    needed = _COPIES * weights_bytes * len(settings.training.methods) + _BESIDE_BYTES
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    if free < needed:
        raise RunError(
            f"the disk of {nearest} has {free / 1e6:,.0f} MB left, and this run may write {needed / 1e6:,.0f} MB: "
            "make room, or choose another report.out"
        )
