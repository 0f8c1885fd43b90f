"""A run folder that a stranger hands over: `evaluate` refuses what is no run's, and harms no file elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.client.student_factories import CLASSES, SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.cli.app import run
from vl2v_client.core.errors import DataError, RunError
from vl2v_client.evaluation.accuracy import write_predictions
from vl2v_client.export.weights import export_bundle
from vl2v_client.reports.report import read_report
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.run_images import RunImages, keep_images
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, as far as `evaluate` reads one."""
    for name in CLASSES:
        (tmp_path / "data" / "photo" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "data" / "photo" / name / "0.png")
    card = StudentCard(TINY_VIT, SIZE, tuple(sorted(CLASSES)), "VL2V-ADiP", 0, logit_scale=20.0)
    bundle = StudentBundle(fresh_classifier(), card)
    export_bundle(tmp_path / "run" / "student", bundle, check_pixels=coloured_views(5, views=1).pixels[:, 0])
    teacher = {"id": "tiny", "ledger_id": "local", "weights_sha": "ab"}
    data = {"root": str(tmp_path / "data"), "prompts": ["{class}"]}
    write(tmp_path / "run", {"format": 2, "data": data, "teacher": teacher})
    return tmp_path / "run"


def write(folder: Path, config: Any, images: Any = None) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    run_folder = RunFolder(folder, config, config)
    keep_images(run_folder, RunImages({}, {}, {}, 0))
    if images is not None:
        (folder / "images.json").write_text(json.dumps({"format": 1, "of": run_folder.settings_sha, **images}))


def evaluate(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["evaluate", str(folder), "--data", str(folder.parent / "data")])
    return code, capsys.readouterr().err


def test_a_good_run_is_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder.parent / "data", folder.parent / "other")
    assert run(["evaluate", str(folder), "--data", str(folder.parent / "other")]) == 0
    assert "photo" in capsys.readouterr().out
    code, told = evaluate(folder, capsys)
    assert code == DataError.exit_code
    assert "scored on no image" in told


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("data", None),
        ("data", 3),
        ("teacher", None),
        ("teacher", "tiny"),
        ("teacher", {"id": 3}),
        ("data", {"root": "data", "prompts": "{class}"}),
        ("data", {"root": "data", "prompts": [3]}),
        ("format", 1),
    ],
)
def test_a_configuration_that_no_run_has_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], entry: str, value: Any
) -> None:
    config = json.loads((folder / "config.json").read_text())
    write(folder, {**config, entry: value})
    code, told = evaluate(folder, capsys)
    assert code == RunError.exit_code
    assert "config.json" in told or "is not a run folder" in told
    assert entry in told or entry == "format"


@pytest.mark.parametrize("text", ["[]", "3", "[" * 100_000, "", '{"data": "' + "a" * 2**25 + '"}'])
def test_a_file_that_is_no_configuration_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (folder / "config.json").write_text(text)
    code, told = evaluate(folder, capsys)
    assert code == RunError.exit_code
    assert "is not a run folder" in told


@pytest.mark.parametrize(
    "images",
    [{"train": 3}, {"validation": ["a"]}, {"target": {"a": 3}}, {"target_in": "all"}, {"train": None}],
)
def test_images_that_no_run_names_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], images: dict[str, Any]
) -> None:
    config = json.loads((folder / "config.json").read_text())
    write(folder, config, {"train": {}, "validation": {}, "target": {}, "target_in": 0, **images})
    code, told = evaluate(folder, capsys)
    assert code == RunError.exit_code
    assert "images.json is damaged" in told


@pytest.mark.parametrize("name", ["config.json", "images.json"])
def test_a_pipe_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert evaluate(folder, capsys)[0] == RunError.exit_code


def test_the_lock_empties_no_file_that_it_leads_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = folder.parent / "precious"
    precious.write_text("mine")
    (folder / ".lock").symlink_to(precious)
    evaluate(folder, capsys)
    assert precious.read_text() == "mine"


def test_a_file_that_is_written_anew_is_not_written_where_a_link_leads(folder: Path) -> None:
    precious = folder.parent / "precious"
    precious.write_text("mine")
    (folder / "predictions.csv.partial").symlink_to(precious)
    write_predictions(folder, [])
    assert precious.read_text() == "mine"
    assert (folder / "predictions.csv").read_text().startswith("classifier,")
    assert not (folder / "predictions.csv.partial").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rows", [{"name": "ERM", "source_validation": "high"}]),
        ("rows", [3]),
        ("counts", {"train": "many"}),
        ("class_names", "red"),
        ("purchase", {"images": 1, "texts": 1, "amount_micro": "much", "currency": "EUR"}),
        ("confusion", [["x"]]),
        ("dataset", 3),
    ],
)
def test_a_report_that_no_run_writes_is_refused(tmp_path: Path, entry: str, value: Any) -> None:
    report = {
        "format": 1, "generalisation_measured": False, "dataset": "shapes", "class_names": ["red"],
        "source_domains": ["photo"], "target_domain": None, "counts": {"train": 1}, "rows": [], "purchase": None,
        "teacher": "tiny", "student": "tiny", "seed": 0, "settings": {}, "confusion": None, "student_folder": "student",
        "by_domain": [], "local": None,
    }  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert read_report(tmp_path).dataset == "shapes"
    (tmp_path / "report.json").write_text(json.dumps({**report, entry: value}))
    with pytest.raises(RunError, match=f"report.*{entry}"):
        read_report(tmp_path)
