"""This version reads the run folders of version 0.1, finished and unfinished ones.

`tests/fixtures/v0.1/README.md` says what the fixtures hold and how they were made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.client.pages import Page, check_page
from support.client.version_01 import OFFLINE, Command

FINISHED = (
    "k-center-two-rounds",
    "herding-class-mean",
    "max-herding-knn",
    "typiclust-iidmax",
    "margin-text-styles",
    "pcoreset",
    "sweep/photo/seed0/adip-align-only",
    "sweep/sketch/seed0/adip-align-only",
)
REMOVED: dict[str, dict[str, Any]] = {
    "k-center-two-rounds": {"spending": {"select": "k-center", "max_queries": 50, "rounds": 2}},
    "herding-class-mean": {"spending": {"select": "herding", "max_queries": 50, "rounds": 1}, "impute": "class-mean"},
    "max-herding-knn": {"spending": {"select": "max-herding", "max_queries": 50, "rounds": 1}, "impute": "knn"},
    "typiclust-iidmax": {
        "spending": {"select": "typiclust", "max_queries": 50, "rounds": 1},
        "training.carries": "iidmax",
    },
    "margin-text-styles": {
        "spending": {"select": "margin", "max_queries": 110, "rounds": 1},
        "style_targets": "text",
    },
    "pcoreset": {"spending": {"select": "pcoreset", "max_queries": 50, "rounds": 1}},
}
"""Values in the folders' `config.json` that version 0.2 no longer takes, and the ones that came with them."""


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_evaluated_and_predicts_as_before(
    name: str, client: Command, run_folder: Callable[[str], Path], unpacked: Path, expected: dict[str, Any]
) -> None:
    folder = run_folder(f"distilled/{name}")
    config = json.loads((folder / "config.json").read_text())
    config |= {f"training.{key}": value for key, value in config["training"].items()}
    assert {key: config[key] for key in REMOVED.get(name, {})} == REMOVED.get(name, {})
    reports = {path.name: path.read_bytes() for path in folder.glob("report.*")}
    assert set(reports) == {"report.json", "report.md"}

    assert client("evaluate", folder, "--json").json() == expected["evaluate"][name]

    images = [unpacked / row["path"] for row in expected["predict"][name]]
    done = client("predict", folder, *images, "--json")
    assert done.code == 0, done.err
    for line, image, row in zip(done.out.splitlines(), images, expected["predict"][name], strict=True):
        found = json.loads(line)
        assert (found["path"], found["class"]) == (str(image), row["class"])
        assert found["probability"] == pytest.approx(row["probability"], abs=1e-3)
    assert {path.name: path.read_bytes() for path in folder.glob("report.*")} == reports


def test_a_report_takes_the_teachers_row(
    client: Command, run_folder: Callable[[str], Path], cache: Callable[[str], Path], expected: dict[str, Any]
) -> None:
    folder = run_folder("distilled/herding-class-mean")
    before = json.loads((folder / "report.json").read_text())
    done = client("evaluate", folder, "--teacher", "--yes", "--json", VL2V_CACHE=cache("acme"), **OFFLINE)
    assert [row["teacher"] for row in done.json() if row["role"] == "unseen"] != [None]
    after = json.loads((folder / "report.json").read_text())
    assert after != before
    unknown_then = {"exported": after["rows"][-1]["name"], "last_stage": None, "probed": False}
    unknown_then |= {"estimate": None, "trained_in": ""}
    assert _rounded(after) == _rounded(expected["teacher_report"] | unknown_then)
    assert "class-mean" in (folder / "report.md").read_text()
    assert "zero-shot teacher" in (folder / "report.html").read_text()


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_gets_a_page_of_what_it_has(
    name: str, client: Command, run_folder: Callable[[str], Path]
) -> None:
    folder = run_folder(f"distilled/{name}")
    before = _contents(folder)
    done = client("report", folder)
    assert done.code == 0, done.err
    page = Page((folder / "report.html").read_text())
    check_page(page)
    assert {"Training", "Confusion", "What it cost"} <= set(page.headings)
    assert "The worst mistakes" not in page.headings, "no version 0.1 kept predictions"
    (folder / "report.html").unlink()
    assert _contents(folder) == before


def test_a_finished_sweep_makes_its_report_again(
    client: Command,
    run_folder: Callable[[str], Path],
    cache: Callable[[str], Path],
    unpacked: Path,
    expected: dict[str, Any],
) -> None:
    folder = run_folder("distilled/sweep")
    before = json.loads((folder / "report.json").read_text())
    (folder / "report.json").unlink()
    words = _here(expected["commands"]["distilled/sweep"], unpacked, folder)
    done = client(*words, VL2V_CACHE=cache("acme"), **OFFLINE)
    assert done.code == 0, done.err
    assert json.loads((folder / "report.json").read_text()) == before


def test_an_unfinished_run_goes_on_after_its_align_stage(
    client: Command, place: Path, cache: Callable[[str], Path], expected: dict[str, Any]
) -> None:
    folder = place / "unfinished" / "kept"
    method = folder / "methods" / "vl2v-adip"
    aligned = (method / "checkpoints" / "align.pt").read_bytes()
    words = _here(expected["commands"]["unfinished/kept"], place, folder)
    report = client(*words, VL2V_CACHE=cache("acme"), **OFFLINE).json()
    names = [row["name"] for row in report["rows"]]
    assert names == ["zero-shot teacher", "chance", "majority class", "VL2V-ADiP"]  # no probe: it was begun without
    assert set(report["last_stage"]["validation"]) == {"swad", "best", "last"}
    assert (method / "checkpoints" / "align.pt").read_bytes() == aligned  # not trained again
    stages = [json.loads(row)["stage"] for row in (method / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["align"] * 2 + ["distill"] * 4
    assert client("evaluate", folder, "--json").code == 0


def test_an_unfinished_run_with_a_removed_value_is_refused_unharmed(
    client: Command, place: Path, cache: Callable[[str], Path], expected: dict[str, Any]
) -> None:
    folder = place / "unfinished" / "removed"
    before = _contents(folder)
    words = _here(expected["commands"]["unfinished/removed"], place, folder)
    done = client(*words, VL2V_CACHE=cache("acme"), **OFFLINE)
    assert done.code == 2, done.err
    assert "was removed in version 0.2.0" in done.err
    assert _contents(folder) == before


def test_an_unfinished_run_is_refused_to_other_settings_unharmed(
    client: Command, place: Path, cache: Callable[[str], Path], expected: dict[str, Any]
) -> None:
    """The command of the `kept` folder in the other one, without the values that the latter was begun with."""
    folder = place / "unfinished" / "removed"
    before = _contents(folder)
    words = _here(expected["commands"]["unfinished/kept"], place, folder)
    done = client(*words, VL2V_CACHE=cache("acme"), **OFFLINE)
    assert done.code in (2, 9), done.err
    assert _contents(folder) == before


def _here(words: list[str], unpacked: Path, folder: Path) -> list[str]:
    """A command line as it was given then, with the places of today."""
    places = {"--data": unpacked / "shapes", "--out": folder}
    weights = {"--student-weights": unpacked}
    found = list(words)
    for place, word in enumerate(words[:-1], start=1):
        if word in places:
            found[place] = str(places[word])
        elif word in weights:
            found[place] = str(weights[word] / words[place])
    return found


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rounded(value: Any) -> Any:
    """The value with its numbers to three places: another processor may add in another order."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value
