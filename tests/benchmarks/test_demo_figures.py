"""The demo's accuracies and bill in the README are those that a run of it wrote."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from demo import bill_of, gain_of, parse_arguments, rows_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RESULT = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())
REPORT: dict[str, Any] = {
    "target_domain": "sketch",
    "rows": [
        {"name": "chance", "source_validation": None, "target": 0.1},
        {"name": "ERM", "source_validation": 0.9, "target": 0.4},
        {"name": "VL2V-ADiP", "source_validation": None, "target": 0.47},
    ],
    "purchase": {"images": 3840, "texts": 10, "amount_micro": 384_100, "currency": "EUR", "test_images": 400},
}


def test_the_readme_s_table_and_bill_are_the_result_s() -> None:
    block = README.split("ends so:\n\n", 1)[1].split("\n\nERM is", 1)[0]
    lines = [re.split(r" {2,}", line.strip()) for line in block.splitlines()]
    header, *rows = lines[: len(RESULT["rows"]) + 1]
    assert [dict(zip(header, row, strict=True)) for row in rows] == RESULT["rows"]
    bill = " ".join(word for line in lines[len(rows) + 1 :] for word in line)
    assert bill in RESULT["notes"]


def test_the_readme_s_time_is_the_result_s() -> None:
    (seconds,) = (goal["value"] for goal in RESULT["goals"] if goal["name"] == "seconds")
    (minutes,) = re.findall(r"takes about ([\d.]+) minutes", README)
    assert abs(60 * float(minutes) - seconds) < 15


def test_the_gain_on_the_page_of_accuracies_is_the_result_s() -> None:
    unseen = {row["accuracy, percent"]: row["unseen sketch"] for row in RESULT["rows"]}
    (gain,) = (goal["value"] for goal in RESULT["goals"] if goal["name"] == "VL2V-ADiP above ERM, points")
    page = " ".join((ROOT / "docs" / "accuracy.md").read_text().split())
    shown = (
        f"own gain is {gain} points (25 of 400 pictures; {unseen['VL2V-ADiP']} against ERM's {unseen['ERM']}, sketch"
    )
    assert shown in page
    assert gain == 100 * 25 / 400


def test_a_result_is_made_of_the_report() -> None:
    assert rows_of(REPORT) == [
        {"accuracy, percent": "ERM", "source validation": "90.0", "unseen sketch": "40.0"},
        {"accuracy, percent": "VL2V-ADiP", "source validation": "-", "unseen sketch": "47.0"},
    ]
    assert bill_of(REPORT).startswith("The bill: 3,850 queries for the student, 0.3841 EUR; 400 more for the teacher's")
    assert (gain_of(REPORT).value, gain_of(REPORT).met) == (7.0, True)


def test_no_result_is_written_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    assert parse_arguments().out is None
