"""`vl2v-client predict`: classify images with a finished student. Free, for ever, without a vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vl2v_client.cli.console import csv_writer, write_json
from vl2v_client.cli.options import AsJson
from vl2v_client.core.errors import DataError


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

    student = run / "student" if (run / "student").is_dir() else run
    bundle = load_bundle(student)
    write = csv_writer()
    if not as_json:
        write(["path", "class", "probability"])
    for one in predict_images(bundle, _files(images)):
        if as_json:
            row = {"path": str(one.path), "class": one.class_name, "probability": round(one.probability, 6)}
            write_json(row)
        else:
            write([one.path, one.class_name, f"{one.probability:.4f}"])


def _files(given: list[Path]) -> list[Path]:
    from vl2v_client.data.folder import IMAGE_SUFFIXES, list_images

    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = list_images(path)
        if not inside:
            raise DataError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}): give files or another folder")
        found += map(Path, inside)
    return found
