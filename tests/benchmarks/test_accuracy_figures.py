"""Every accuracy in the documents' tables is one that a benchmark wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(r"-?\d+\.\d+ ± \d+\.\d+")


@pytest.mark.parametrize("page", ["README.md", "docs/accuracy.md"])
def test_each_accuracy_with_its_error_is_in_a_result(page: str) -> None:
    files = (ROOT / "benchmarks" / "results").glob("accuracy_*.json")
    written = {figure for file in files for figure in _figures(str(json.loads(file.read_text())))}
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    claimed = set(_figures("\n".join(rows)))
    assert claimed, "no figure is in the page's tables"
    assert claimed <= written


def _figures(text: str) -> list[str]:
    return FIGURE.findall(text)
