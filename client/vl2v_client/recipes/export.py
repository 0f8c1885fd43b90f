"""Ship a finished run's student: choose images to compare on, write the format, compare, give it its name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.config.run import ExportFormat
from vl2v_client.core.errors import DataError, RunError, UsageError
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.image_predictions import find_files
from vl2v_client.export.agreement import Agreement
from vl2v_client.export.model_card import ModelFacts
from vl2v_client.export.student_export import check_target, write_export
from vl2v_client.export.weights import load_bundle, student_folder
from vl2v_client.reports.report import read_report
from vl2v_client.runs.run_folder import open_run_folder
from vl2v_client.runs.run_images import HOLD_OUT, choose_images, recorded_config
from vl2v_client.student.model.spec import StudentCard

MAX_IMAGES = 1_000
_MAX_BYTES = 2**28  # of pixels that are compared on


def export_run(run: Path, format_: ExportFormat, out: Path, images: Sequence[str] = ()) -> Agreement:
    """Export the student of a run, or of a student folder, to the new folder `out`.

    Args:
        run: Run folder, or a student folder.
        format_: What to write.
        out: Folder to make.
        images: Image files, folders and patterns to compare the export on; the run's hold-out if there are none.

    Raises:
        UsageError: `out` is there already, a package is missing, the format cannot hold the student, or a student
            folder comes without images.
        DataError: An image or the student cannot be read.
        RunError: The run is not finished, or the export answers otherwise than the student; nothing is left of it.
        CacheError: `out` cannot be written.
    """
    check_target(out, format_)
    bundle = load_bundle(folder := student_folder(run))
    if images:
        paths, compared = _named(images), "images that were named for it"
    elif folder != run:
        paths, compared = _hold_out(run, bundle.card), "the hold-out of the source domains"
    else:
        raise UsageError(f"{run} is a student without its run: name images to compare the export on")
    pixels = _read(paths, bundle.card.view_size)
    return write_export(out, format_, bundle, pixels, _facts(run, compared))


def _named(images: Sequence[str]) -> list[Path]:
    files = find_files(images)
    for file in files:
        if file.error is not None:
            raise DataError(file.error)
    return [Path(file.path) for file in files]


def _hold_out(run: Path, card: StudentCard) -> list[Path]:
    folder = open_run_folder(run)
    try:
        chosen = choose_images(folder, recorded_config(folder).root, card, None)
    except DataError as error:
        raise DataError(f"{error}; or name other images to compare the export on") from error
    return [sample.path for sample, role in zip(chosen.samples, chosen.roles, strict=True) if role == HOLD_OUT]


def _read(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return the views `[N, size, size, 3]` of images that are spread over all paths."""
    if not paths:
        raise DataError("there is no image to compare the export on: name some")
    count = min(len(paths), MAX_IMAGES, max(1, _MAX_BYTES // (3 * size**2)))
    places = np.linspace(0, len(paths) - 1, count).round().astype(int)
    return np.stack([render_view(load_rgb(paths[place]), canonical_view(), size) for place in places])


def _facts(run: Path, compared: str) -> ModelFacts:
    try:
        report = read_report(run)
    except RunError:
        return ModelFacts(compared)
    return ModelFacts(compared, report.dataset, report.source_domains)
