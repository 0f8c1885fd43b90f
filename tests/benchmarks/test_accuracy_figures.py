"""Every accuracy in the documents' tables is one that a benchmark wrote, in the row that says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(r"-?\d+\.\d+ ± \d+\.\d+")
PAGES = {
    ("README.md", "The method, and what it costs"): ("table_pacs", "table_shapes"),
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


def _figures(value: object) -> set[str]:
    return set(FIGURE.findall(str(value)))


@pytest.mark.parametrize(("page", "section"), PAGES)
def test_each_accuracy_with_its_error_is_in_the_row_of_a_result(page: str, section: str) -> None:
    results = [_result(name) for name in PAGES[page, section]]
    rows = [row for result in results for row in result["rows"]]
    goals = set().union(*(_figures(result["goals"]) for result in results))
    checked = 0
    for label, *cells in _lines(page, section):
        name = label.partition(":")[0]
        of_name = [row for row in rows if row[""] in (name, f"VL2V-ADiP, {name}")]
        claimed = _figures(cells)
        assert claimed <= (_figures(of_name) if of_name else goals), label
        checked += len(claimed)
    assert checked > 10


def test_the_curve_s_table_is_the_result() -> None:
    rows = {row[""]: row for row in _result("curve_shapes")["rows"]}
    header, _, *lines = _lines("docs/accuracy.md", "Drawings: shapes")[-5:]
    assert [line[0] for line in lines] == ["queries", "VL2V-ADiP", "default"]
    for column, shown in enumerate(header[1:], start=1):
        point = f"{shown} of K=1" if shown.endswith("%") else shown
        assert lines[0][column] == f"{rows[f'default, {point}']['queries']:,}", shown
        for name, *cells in lines[1:]:
            assert cells[column - 1] == rows[f"{name}, {point}"]["all"], (name, shown)


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
