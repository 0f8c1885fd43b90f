"""`vl2v-client report`, and what `distill` and `evaluate` leave for the page of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.pages import Page, check_page
from vl2v_client.core.errors import CacheError, RunError, UsageError
from vl2v_client.evaluation.accuracy import read_predictions

ENDLESS = {"stage": "distill", "steps": 1, "seconds": float("inf"), "memory_bytes": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientShell]:
    """A finished run with ERM beside it; its unseen domain has 20 pictures of two classes."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("report")
    draw_domains(home / "data", 10)
    with served(FakeVendor()) as url:
        shell = ClientShell(url, home, "--target-domain", "sketch", "--views", "1", "--baseline", "erm")
        shell.distill()
        yield shell


def _page(path: Path) -> Page:
    page = Page(path.read_text())
    check_page(page)
    return page


def test_a_run_leaves_a_page_with_all_its_parts(shell: ClientShell) -> None:
    page = _page(shell.run_folder / "report.html")
    for heading in ("What it cost", "Accuracy by domain", "Stage align: loss", "Reliability", "Confusion", "Settings"):
        assert heading in page.text
    wrong = [row for row in read_predictions(shell.run_folder) if row.classifier == "VL2V-ADiP" and not row.is_right]
    assert len(page.all("img")) == len(wrong) > 0
    assert all(row.path in page.text for row in wrong)
    rows = [
        json.loads(line) for line in (shell.run_folder / "methods/vl2v-adip/metrics.jsonl").read_text().splitlines()
    ]
    assert {tuple(point[0] for point in row["curve"]) for row in rows} == {(1,), (2,)}


def test_the_hold_out_s_predictions_are_kept_too(shell: ClientShell) -> None:
    rows = read_predictions(shell.run_folder, "predictions_hold_out.csv")
    assert {row.classifier for row in rows} == {"ERM", "VL2V-ADiP"}
    validation = json.loads((shell.run_folder / "images.json").read_text())["validation"]
    assert {row.path for row in rows} == set(validation)
    of_student = [row for row in rows if row.classifier == "VL2V-ADiP"]
    by_domain = [[row.is_right for row in of_student if row.path.startswith(domain)] for domain in ("art", "photo")]
    reported = shell.read("report.json")["rows"][-1]["source_validation"]
    assert sum(sum(right) / len(right) for right in by_domain) / 2 == pytest.approx(reported)


def test_the_teacher_s_row_gets_into_the_page(shell: ClientShell) -> None:
    assert "Better than the zero-shot teacher" not in (before := _page(shell.run_folder / "report.html").text)
    assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
    after = _page(shell.run_folder / "report.html").text
    assert after != before
    assert {row.classifier for row in read_predictions(shell.run_folder)} == {"ERM", "VL2V-ADiP", "zero-shot teacher"}


def test_the_page_is_written_again_and_elsewhere(shell: ClientShell, tmp_path: Path) -> None:
    first = (shell.run_folder / "report.html").read_text()
    (shell.run_folder / "report.html").unlink()
    done = shell.run("report", str(shell.run_folder))
    assert (done.exit_code, (shell.run_folder / "report.html").read_text()) == (0, first)
    assert "VL2V-ADiP" in done.stdout
    assert shell.run("report", str(shell.run_folder), "--out", str(tmp_path / "new" / "a.html")).exit_code == 0
    assert (tmp_path / "new" / "a.html").read_text() == first
    refused = shell.run("report", str(shell.run_folder), "--out", str(tmp_path / "new"))
    assert isinstance(refused.exception, CacheError)
    assert [path.name for path in tmp_path.iterdir()] == ["new"], "nothing is left of it"
    assert shell.json("report", str(shell.run_folder)) == shell.read("report.json")


def test_pictures_are_those_that_the_run_was_judged_by_and_nothing_else(shell: ClientShell, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shell.run_folder, run)
    rows = read_predictions(run)
    wrong = [row for row in rows if row.classifier == "VL2V-ADiP" and not row.is_right]
    secret = tmp_path / "secret.png"
    shutil.copy(shell.data / wrong[0].path, secret)
    lines = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(lines.replace(wrong[0].path, f"../../{secret}"))
    assert shell.run("report", str(run)).exit_code == 0
    page = _page(run / "report.html")
    assert len(page.all("img")) == len(wrong) - 1
    shutil.move(shell.data, shell.folder / "away")
    try:
        assert shell.run("report", str(run)).exit_code == 0
        assert _page(run / "report.html").all("img") == [], "the data set is gone"
    finally:
        shutil.move(shell.folder / "away", shell.data)


def test_runs_are_compared_in_a_table_and_on_a_page(shell: ClientShell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shell.run_folder, other)
    report = json.loads((other / "report.json").read_text())
    report["purchase"]["images"] = 10
    (other / "report.json").write_text(json.dumps(report))
    out = tmp_path / "both.html"
    done = shell.run("report", str(shell.run_folder), str(other), "--out", str(out))
    assert done.exit_code == 0, done.output
    page = _page(out)
    assert "other against run is undecided: +0.0 points" in page.text
    assert "Accuracy by queries" in page.text
    assert [
        run["run"] for run in shell.json("report", str(other), str(shell.run_folder), "--out", str(out))["runs"]
    ] == [
        "other",
        "run",
    ]
    twice = shell.run("report", str(other), str(other), "--out", str(out))
    assert isinstance(twice.exception, UsageError)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": []}, "report.json is damaged"),
        ({"confusion": [[1]]}, "report.json is damaged"),
        ({"counts": {"target": -1}}, "report.json is damaged"),
        ({"estimate": ENDLESS}, "report.json is damaged"),
        ({"by_domain": [{"domain": "a", "seen": True, "images": 1, "accuracy": 7.0}]}, "report.json is damaged"),
    ],
)
def test_figures_that_no_run_has_are_refused(
    shell: ClientShell, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(shell.run_folder / "config.json", run)
    (run / "report.json").write_text(json.dumps(shell.read("report.json") | change))
    done = shell.run("report", str(run))
    assert isinstance(done.exception, RunError)
    assert told in str(done.exception)
    assert not (run / "report.html").exists()


def test_damaged_curves_are_left_out_and_damaged_predictions_named(shell: ClientShell, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shell.run_folder, run)
    metrics = run / "methods" / "vl2v-adip" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert shell.run("report", str(run)).exit_code == 0
    assert "Training" not in _page(run / "report.html").text
    table = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(table[: table.rindex(",")] + ",7.0\n")
    done = shell.run("report", str(run))
    assert isinstance(done.exception, RunError)
    assert "predictions.csv is damaged" in str(done.exception)
