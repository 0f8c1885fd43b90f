"""`vl2v-client report` of a sweep's folder: its own table and page again, never a run's."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from support.client.client_shell import Result, invoke
from support.client.pages import Page, check_page
from vl2v_client.core.errors import RunError
from vl2v_client.reports.pages import SharedPurchase
from vl2v_client.reports.sweep_page import write_sweep
from vl2v_client.reports.sweep_report import Outcome, SweepReport

TARGETS, SEEDS, METHODS = ("photo", "sketch"), (0, 1), ("ERM", "VL2V-ADiP")


def report(*words: object) -> Result:
    return invoke(["report", *map(str, words)], {})


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a finished sweep, without its runs."""
    outcomes = tuple(
        Outcome(method, target, seed, 0.9, 0.5 + 0.1 * (method == "VL2V-ADiP"), 0.5)
        for target, seed, method in product(TARGETS, SEEDS, METHODS)
    )
    queries, bought = {"ERM": 0, "VL2V-ADiP": 20}, SharedPurchase(18, 2, 20_000, "EUR")
    folder = tmp_path / "sweep"
    write_sweep(
        folder, SweepReport("photos", TARGETS, SEEDS, "clip", "tiny", "2, whole", outcomes, {}, bought, queries, 400)
    )
    (folder / "config.json").write_text(json.dumps({"sweep": True, "format": 3}))
    return folder


def test_its_page_is_written_again_and_its_table_shown(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    first = (sweep / "report.html").read_text()
    (sweep / "report.html").unlink()
    done = report(sweep)
    assert (done.exit_code, (sweep / "report.html").read_text()) == (0, first), done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["ERM", "VL2V-ADiP"]
    assert "60.0 ± 0.0" in done.stdout
    assert report(sweep, "--out", tmp_path / "a.html").exit_code == 0
    check_page(Page((tmp_path / "a.html").read_text()))
    assert json.loads(report(sweep, "--json").stdout) == json.loads((sweep / "report.json").read_text())


def test_beside_others_the_runs_in_it_are_to_be_named(sweep: Path, tmp_path: Path) -> None:
    done = report(sweep, tmp_path / "run", "--out", tmp_path / "a.html")
    assert isinstance(done.exception, RunError)
    assert f"{sweep} is a sweep: name the runs in it, {sweep}/TARGET/seedN/METHOD" in str(done.exception)
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outcomes": []}, "its runs are not those"),
        ({"targets": ["photo"]}, "its runs are not those"),
        ({"teacher_target_in": {"photo": 7.0}}, "an accuracy is no share"),
        ({"purchase": 5}, "validation error"),
        (None, "No such file"),
    ],
)
def test_what_no_sweep_has_left_is_named(sweep: Path, change: dict[str, Any] | None, told: str) -> None:
    record = json.loads((sweep / "report.json").read_text())
    if change is None:
        (sweep / "report.json").unlink()
    else:
        (sweep / "report.json").write_text(json.dumps(record | change))
    before = (sweep / "report.html").read_text()
    done = report(sweep)
    assert isinstance(done.exception, RunError)
    assert told in str(done.exception)
    assert "the same `vl2v-client sweep` writes it again" in str(done.exception)
    assert (sweep / "report.html").read_text() == before
