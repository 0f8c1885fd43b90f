"""What a run folder has for its page: the report, predictions, training curves, and the pictures of its mistakes.

Everything but the report may be missing: earlier versions kept less, and a data set may be gone.
"""

import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import DataError, RunError
from vl2v_client.core.files import open_regular, write_whole
from vl2v_client.data.images import load_rgb
from vl2v_client.evaluation.accuracy import HOLD_OUT_FILE, PREDICTIONS_FILE, ImagePrediction, read_predictions
from vl2v_client.planning.file_contents import hash_in_threads
from vl2v_client.reports.html_page import PAGE_FILE
from vl2v_client.reports.report import RunReport, read_report
from vl2v_client.reports.run_charts import CurvePoint, EvaluationPoint, StageCurve
from vl2v_client.reports.run_page import RunPage
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.run_images import find_images, recorded_config

_MAX_METRICS_BYTES = 64 * 2**20
_SIDE = 120  # pixels of a picture's longer side: twice what a phone shows of it
_MAX_PICTURE_BYTES = 12_000
_QUALITY = 72


def write_run_page(folder: RunFolder, out: Path | None = None) -> Path:
    """Write the page of a run that has a report, and return its place.

    Args:
        folder: The run.
        out: Where to write it; in the run folder if left out.

    Raises:
        RunError: There is no report, or a file of the run is damaged.
        CacheError: The page cannot be written.
    """
    path, page = out or folder.path / PAGE_FILE, load_run_page(folder)
    write_whole(path, replace(page, pictures=_pictures(folder, page.mistakes())).to_html())
    return path


def load_run_page(folder: RunFolder) -> RunPage:
    """Return what the page of a run shows, without pictures.

    Raises:
        RunError: It is a sweep, there is no report, or a file of the run is damaged.
    """
    if folder.config.get("sweep"):
        raise RunError(f"{folder.path} is a sweep: name the runs in it, {folder.path}/TARGET/seedN/METHOD")
    report = read_report(folder.path)
    if not _makes_sense(report):
        raise RunError(f"{folder.path / 'report.json'} is damaged: run the distillation again")
    name = HOLD_OUT_FILE if report.target_domain is None else PREDICTIONS_FILE
    averaged = None if report.last_stage is None else report.last_stage.swad_steps
    curves = read_curves(folder.method(_method_place(folder, report.trained_in)) / "metrics.jsonl", averaged)
    return RunPage(report, read_predictions(folder.path, name), curves)


def _makes_sense(report: RunReport) -> bool:
    """Return whether the figures of a report, which may be somebody else's, can be drawn."""
    shares = [share for row in report.rows for share in (row.source_validation, row.target) if share is not None]
    shares += [row.accuracy for row in report.by_domain]
    classes, counts = len(report.class_names), [count for row in report.confusion or () for count in row]
    is_square = report.confusion is None or {classes} == {len(report.confusion), *map(len, report.confusion)}
    is_finite = report.estimate is None or math.isfinite(report.estimate.seconds)
    images = [*report.counts.values(), *counts, *(row.images for row in report.by_domain)]
    return (
        bool(report.rows)
        and is_square
        and is_finite
        and min(images, default=0) >= 0
        and all(0 <= one <= 1 for one in shares)
    )


def _method_place(folder: RunFolder, trained_in: str) -> str:
    """Return the name of the folder with the metrics of the run's method."""
    training = folder.config.get("training")
    place = trained_in or (str(training.get("method", "")) if isinstance(training, dict) else "")
    return "" if Path(place).name != place else place


def read_curves(path: Path, averaged: tuple[int, int] | None) -> tuple[StageCurve, ...]:
    """Return the stages of `metrics.jsonl` in order; none if the file is missing or damaged.

    Args:
        path: The file.
        averaged: First and last step that SWAD averaged in the last stage, if known.
    """
    try:
        with open_regular(path, _MAX_METRICS_BYTES) as file:
            rows = [json.loads(line) for line in file]
        stages: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            stages.setdefault(str(row["stage"]), []).append(row)
        curves = [_curve(name, of_stage) for name, of_stage in stages.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    if curves:
        curves[-1] = replace(curves[-1], averaged=averaged)
    return tuple(curve for curve in curves if curve.points and curve.evaluations)


def _curve(name: str, rows: Iterable[Mapping[str, Any]]) -> StageCurve:
    points: list[CurvePoint] = []
    evaluations = []
    for row in rows:
        step = int(row["step"])
        of_row = row.get("curve") or [(step, row["loss"], row["gap_to_floor"])]
        points += [CurvePoint(int(at), float(loss), float(gap)) for at, loss, gap in of_row]
        evaluations.append(EvaluationPoint(step, float(row["validation_accuracy"]), float(row["validation_loss"])))
    return StageCurve(
        name,
        tuple(one for one in points if math.isfinite(one.loss) and math.isfinite(one.gap)),
        tuple(one for one in evaluations if math.isfinite(one.accuracy) and math.isfinite(one.loss)),
    )


def _pictures(folder: RunFolder, mistakes: Iterable[ImagePrediction]) -> dict[str, bytes]:
    """Return small JPEG files of the images of some predictions: only of those that the run was judged by.

    A file is opened if its content is what the run recorded of that path, so that nothing else on this machine gets
    into a page, whoever made the run folder.
    """
    try:
        root, images = recorded_config(folder).root, find_images(folder)
    except RunError:
        return {}
    if images is None:
        return {}
    judged = images.validation | images.target
    wanted = [one.path for one in mistakes if one.path in judged and (root / one.path).is_file()]
    try:
        hashes = hash_in_threads([str(root / path) for path in wanted])
    except DataError:
        return {}
    found = {}
    for path, file_sha in zip(wanted, hashes, strict=True):
        if file_sha == judged[path] and (jpeg := _small(root / path)):
            found[path] = jpeg
    return found


def _small(path: Path) -> bytes | None:
    """Return a small JPEG file of an image, or nothing if it cannot be made small."""
    try:
        image = load_rgb(path)
    except DataError:
        return None
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue() if buffer.tell() <= _MAX_PICTURE_BYTES else None
