"""Every accuracy in the documents' tables is one that a benchmark wrote, in the row that says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
INTERVAL = re.compile(r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)")
PAGES = {
    ("docs/benchmarks.md", "Accuracy on an unseen domain"): ("table_pacs", "table_shapes"),
    ("docs/accuracy.md", "Photographs: PACS"): ("table_pacs",),
    ("docs/accuracy.md", "Drawings: shapes"): ("table_shapes",),
    ("docs/accuracy.md", "Methods and plans, on development styles"): ("methods_development", "plans_development"),
}
"""Page and section: the results that its tables show."""


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"accuracy_{name}.json").read_text()))


def _lines(page: str, section: str) -> list[list[str]]:
    """The cells of each table row in a section."""
    text = (ROOT / page).read_text()
    body = text.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]


def _values(rows: list[dict[str, Any]]) -> set[str]:
    return {f"{value:,}" if isinstance(value, int) else str(value) for row in rows for value in row.values()}


@pytest.mark.parametrize(("page", "section"), PAGES)
def test_each_cell_is_in_the_row_of_a_result(page: str, section: str) -> None:
    results = [_result(name) for name in PAGES[page, section]]
    rows = [row for result in results for row in result["rows"]]
    checked = 0
    for label, *cells in _lines(page, section):
        name = label.partition(":")[0]
        of_name = [row for row in rows if row[""] in (name, f"VL2V-ADiP, {name}")]
        claimed = {cell for cell in cells[:-1] if cell} if of_name else set()  # the last column is of one target
        assert claimed <= _values(of_name), label
        checked += len(claimed)
    assert checked > 10


@pytest.mark.parametrize(("page", "section"), [place for place in PAGES if "development" not in place[1]])
def test_each_verdict_is_the_result_s(page: str, section: str) -> None:
    goals = {goal["value"] for name in PAGES[page, section] for goal in _result(name)["goals"]}
    shown = [cells for cells in _lines(page, section) if cells[-1] in ("met", "missed", "undecided")]
    for _, measured, verdict in shown:
        assert f"{measured.replace(' below', '')}: {verdict}" in goals
    assert len(shown) == (0 if page == "docs/benchmarks.md" else len(goals))


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "docs/accuracy.md"])
def test_each_interval_in_the_prose_is_a_result_s(page: str) -> None:
    results = [_result(name) for name in ("table_pacs", "table_shapes")]
    known = set(INTERVAL.findall(json.dumps(results)))
    text = " ".join((ROOT / page).read_text().split())
    found = INTERVAL.findall(text)
    assert set(found) <= known
    assert len(found) > 3


@pytest.mark.parametrize(
    ("page", "section"), [place for place, names in PAGES.items() if "table_pacs" in names] + [("README.md", None)]
)
def test_the_figures_of_pacs_name_their_teacher(page: str, section: str | None) -> None:
    text = (ROOT / page).read_text()
    body = text.split("\n## ", 1)[0] if section is None else text.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    assert "stand-in for CLIP" in " ".join(body.split())
    if section is not None:
        assert "the unseen one included" in " ".join(body.split())
        assert "EfficientNet-lite0" in body


def test_the_result_of_pacs_names_its_teacher() -> None:
    notes = " ".join(_result("table_pacs")["notes"])
    assert "stand-in for CLIP" in notes
    assert "the unseen one included" in notes


@pytest.mark.parametrize("name", ["pacs", "pacs-128", "shapes", "development"])
def test_each_recorded_accuracy_is_a_count_of_its_pictures(name: str) -> None:
    lines = (ROOT / "benchmarks" / "results" / f"accuracy_{name}.runs.jsonl").read_text().splitlines()
    for outcome in map(json.loads, lines):
        right = outcome["accuracy"] * outcome["test_images"]
        assert right == pytest.approx(round(right), abs=1e-6)
        if outcome.get("right"):
            assert outcome["right"].count("1") == round(right)
            assert len(outcome["right"]) == outcome["test_images"]


def test_the_curve_s_table_is_the_result() -> None:
    rows = {row[""]: row for row in _result("curve_shapes")["rows"]}
    header, _, *lines = _lines("docs/accuracy.md", "Drawings: shapes")[-5:]
    assert [line[0] for line in lines] == ["queries", "VL2V-ADiP", "default"]
    for column, shown in enumerate(header[1:], start=1):
        point = f"{shown} of K=1" if shown.endswith("%") else shown
        assert lines[0][column] == f"{rows[f'default, {point}']['queries']:,}", shown
        for name, *cells in lines[1:]:
            assert cells[column - 1] == rows[f"{name}, {point}"]["all"], (name, shown)


def test_the_settings_table_is_the_result() -> None:
    rows = {row["setting"]: row for row in _result("settings_pacs-128")["rows"]}
    names = ["default, K=4", "default, the six styles", "default, no styles", "default, by agreement"]
    _, _, *lines = _lines("docs/accuracy.md", "Settings, chosen on the sources")
    for name, (_, *cells) in zip(names, lines, strict=True):
        assert cells == [f"{rows[name][f'for {target}']:.1f}" for target in ("art_painting", "cartoon", "photo")], name
    record = ROOT / "benchmarks" / "results" / "accuracy_pacs-128.runs.jsonl"
    runs = {(one["row"], one["target"]): one["accuracy"] for one in map(json.loads, record.read_text().splitlines())}
    page = (ROOT / "docs/accuracy.md").read_text()
    for target, without, found in (
        ("cartoon", "art_painting", "42.6 without to 57.1"),
        ("photo", "cartoon", "93.8 to 93.1"),
    ):
        plain, styled = found.replace(" without", "").split(" to ")
        assert f"{100 * runs[f'default, no styles, without {without}', target]:.1f}" == plain
        assert f"{100 * runs[f'default, K=4, without {without}', target]:.1f}" == styled
        assert found in page


def test_the_gap_is_the_result() -> None:
    result = _result("gap_pacs-128")
    rows = {row[""]: row for row in result["rows"]}
    header, _, *lines = _lines("docs/accuracy.md", "The share of the gap")
    for name, *cells in lines:
        row = rows[name]
        wanted = [str(row[column.replace(" ", "_") if " p" in column else column]) for column in header[1:-1]]
        assert cells[:-1] == wanted
        assert cells[-1].replace(",", "") == str(row["queries"])
    names = ("VL2V-ADiP, K=4", "default, K=4", "thorough, K=4")
    teacher = float(rows["zero-shot teacher"]["over ERM"])
    published, default, thorough = (f"{100 * float(rows[name]['over ERM']) / teacher:.0f} %" for name in names)
    page = " ".join((ROOT / "docs/accuracy.md").read_text().split())
    assert f"`thorough` closes {thorough}" in page
    assert f"the default closes {default}, and VL2V-ADiP {published}" in page
    goals = [goal["value"] for goal in result["goals"]]
    assert all(any(goal.startswith(share) for goal in goals) for share in (default, thorough))


def test_the_runs_of_one_seed_beside_the_gap_are_the_record() -> None:
    lines = (ROOT / "benchmarks/results/accuracy_pacs-128.runs.jsonl").read_text().splitlines()
    of = {
        (one["row"], one["target"]): f"{100 * one['accuracy']:.1f}" for one in map(json.loads, lines) if not one["seed"]
    }
    page = " ".join((ROOT / "docs/accuracy.md").read_text().split())
    assert f"teacher's {of['zero-shot teacher', 'photo']} is less than five" in page
    assert f"above ERM's {of['ERM, fine-tuning', 'photo']}" in page
    assert f"VL2V-ADiP has {of['VL2V-ADiP, K=4', 'photo']} and the default {of['default, K=4', 'photo']}" in page


def test_the_speeds_of_training_are_the_result() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "training_speed.json").read_text())
    goals = {goal["name"]: goal["value"] for goal in result["goals"]}
    names = {"ViT-B/16": "vit_base_patch16_224", "ViT-S/16": "vit_small_patch16_224", "the tiny one": "tiny"}
    _, _, *lines = _lines("docs/accuracy.md", "How fast it trains")
    assert [line[0] for line in lines] == list(names)
    for label, align, align_more, distill in lines:
        name = names[label]
        assert align.removesuffix(" times as fast") == f"{goals[f'align, {name}: published form / ours']}"
        assert any(row["student"] == name and f"{align_more} times as fast" in row["form"] for row in result["rows"])
        assert distill == f"{goals.get(f'distill step, {name}: online / ours', '')}"
