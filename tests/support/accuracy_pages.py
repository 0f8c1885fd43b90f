"""The pages of accuracies, section by section, and the results that their tables and prose are of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GAP, SETTINGS = "The share of the gap", "How the settings were chosen"
COLUMNS = {"art painting": "art_painting", "all four": "all", "four styles": "all"}
"""Heading in a document: column of the result, where they differ."""


def result_file(name: str) -> dict[str, Any]:
    """Return a result of `benchmarks/results`."""
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def accuracy_result(name: str) -> dict[str, Any]:
    """Return a result of `accuracy_per_query.py`."""
    return result_file(f"accuracy_{name}")


def recorded_runs(name: str) -> list[dict[str, Any]]:
    """Return the outcomes of a record."""
    lines = (ROOT / "benchmarks" / "results" / f"accuracy_{name}.runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def section_of(page: str, section: str) -> str:
    """Return the text of a section."""
    return (ROOT / page).read_text().split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]


def in_one_line(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def tables_of(page: str, section: str) -> list[list[list[str]]]:
    """Return the tables of a section: lines of cells, the heading first."""
    blocks = re.findall(r"(?:^\|.*\n)+", section_of(page, section) + "\n", re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[header, *lines] for header, _, *lines in rows]
