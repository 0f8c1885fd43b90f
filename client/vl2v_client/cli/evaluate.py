"""`vl2v-client evaluate` and `predict`: score a finished run's student by domain, and classify images with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import csv_writer, plain_table, show, write_json
from vl2v_client.cli.options import COMMON, PURCHASE_OPTIONS, ApiKey, AsJson, Named, Yes, run_config, takes
from vl2v_client.cli.vendor import notify, open_purchase
from vl2v_client.core.errors import DataError


@takes(PURCHASE_OPTIONS.only("vendor_url", "model", "cache", "max_queries", "max_cost"))
def evaluate(
    run: Annotated[Path, Parameter(help="Folder of a `distill`.")],
    /,
    *,
    named: Named,
    data: Annotated[Path | None, Parameter(group=COMMON, help="Another data set with the same classes.")] = None,
    teacher: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Ask the teacher about the unseen images too: a query each."),
    ] = False,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Score the exported student by domain; with --teacher, beside the zero-shot teacher."""
    from vl2v_client.recipes.evaluate import evaluate_run

    if teacher:
        with open_purchase(run_config(named).purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
            found = evaluate_run(run, data=data, context=context, progress=progress)
    else:
        with bars(quiet=as_json) as progress:
            found = evaluate_run(run, data=data, context=None, progress=progress)
    rows = []
    for one in found.scores:
        asked = "-" if one.teacher is None else f"{one.teacher:.1%}"
        rows.append((one.domain, one.role, f"{one.images:,}", f"{one.student:.1%}", asked))
    numbers = (Column(name, justify="right") for name in ("images", "student", "zero-shot teacher"))
    table = plain_table("domain", "role", *numbers, rows=rows)
    show([asdict(score) for score in found.scores], table, as_json=as_json)
    if found.report_updated and not as_json:
        notify(f"The teacher's row is now in {run / 'report.md'}.")


def predict(
    run: Annotated[Path, Parameter(help="Folder of a `distill`, or its student folder.")],
    images: Annotated[list[Path], Parameter(help="Image files, or folders of them.")],
    /,
    *,
    as_json: AsJson = False,
) -> None:
    """Classify images: CSV, or one JSON object a line, with path, class and probability."""
    from vl2v_client.evaluation.accuracy import predict as predict_images
    from vl2v_client.export.weights import load_bundle

    bundle = load_bundle(run / "student" if (run / "student").is_dir() else run)
    write = csv_writer()
    if not as_json:
        write(["path", "class", "probability"])
    for one in predict_images(bundle, _files(images)):
        if as_json:
            write_json({"path": str(one.path), "class": one.class_name, "probability": round(one.probability, 6)})
        else:
            write([one.path, one.class_name, f"{one.probability:.4f}"])


def _files(given: list[Path]) -> list[Path]:
    from vl2v_client.data.folder import IMAGE_SUFFIXES, list_images

    found: list[Path] = []
    for path in given:
        inside = list(map(Path, list_images(path))) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}): give files or another folder")
        found += inside
    return found
