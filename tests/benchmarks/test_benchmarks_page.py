"""Every figure of docs/benchmarks.md is in the result file that its section names, in the row that says so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.figures import NUMBER, numbers_of_prose, rounds_to, without_source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:])
DERIVED = {
    "Accuracy on an unseen domain": {"15", "400", "1,600"},
    "Proofs of the service": {"8"},
    "Speed of the vendor": {"1.23", "1.28"},  # of an earlier run
    "Speed of training": {"96"},
    "Proofs against strangers": {"1,024", "50"},
}
"""Numbers in the prose of a section that no result holds as they are: shares of a gap (tested below) and settings."""

Record = dict[str, Any]


def _results(section: str) -> list[Record]:
    names = re.findall(r"\(\.\./benchmarks/results/([\w-]+\.json)\)", SECTIONS[section])
    return [json.loads((ROOT / "benchmarks" / "results" / name).read_text()) for name in names]


def _table_rows(section: str) -> Iterator[list[str]]:
    """Yield the cells of each row below a table's heading."""
    below = False
    for line in SECTIONS[section].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if below and cells:
            yield cells
        below = bool(cells) and (below or set(line) <= set("|-: "))


def _holds(record: Record, cell: str) -> bool:
    """Tell whether a record has what a cell shows: one of its texts, a part of its name, or a number rounded so."""
    values = list(record.values())
    if cell in map(str, values) or any(isinstance(value, str) and cell in value for value in values[:2]):
        return True
    numbers = NUMBER.findall(cell)
    return bool(numbers) and all(any(rounds_to(value, number) for value in values) for number in numbers)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_table_row_is_a_record_of_the_result(section: str) -> None:
    records = [record for result in _results(section) for record in (*result["rows"], *result["goals"])]
    rows = list(_table_rows(section))
    for cells in rows:
        shown = [cell for cell in cells if cell]
        assert any(all(_holds(record, cell) for cell in shown) for record in records), cells
    assert len(rows) > 2


@pytest.mark.parametrize("section", SECTIONS)
def test_each_number_of_the_prose_is_in_the_result(section: str) -> None:
    unknown = without_source(numbers_of_prose(SECTIONS[section]), _results(section))
    assert unknown <= DERIVED.get(section, set())


@pytest.mark.parametrize("section", SECTIONS)
def test_each_command_is_the_result_s(section: str) -> None:
    commands = re.findall(r"`(python benchmarks/[^`]*)`", SECTIONS[section])
    assert commands
    results = _results(section)
    assert results
    for result in results:
        made_by = shlex.split(result["command"])
        assert any(made_by[: len(words)] == words for words in map(shlex.split, commands))


@pytest.mark.parametrize("section", SECTIONS)
def test_machine_and_versions_are_the_result_s(section: str) -> None:
    shown = " ".join(PAGE.split("\n## ", 1)[0].split())
    for result in _results(section):
        machine, versions = result["machine"], result["versions"]
        assert f"{machine['processor']}, {machine['cores']} cores" in shown
        assert f"{machine['memory_gib']} GiB" in shown
        names = {"open_clip_torch": "open_clip", "torch": "PyTorch"}
        for package, version in versions.items():
            assert f"{names.get(package, package)} {version}".lower() in shown.lower()


def test_the_shares_of_the_gap_are_the_result_s() -> None:
    shown = " ".join(SECTIONS["Accuracy on an unseen domain"].split())
    result = json.loads((ROOT / "benchmarks" / "results" / "accuracy_table_shapes.json").read_text())
    means = {row[""]: float(row["all"].split()[0]) for row in result["rows"] if row["all"]}
    erm, ours, teacher = means["ERM"], means["VL2V-ADiP, K=4"], means["zero-shot teacher"]
    gap = json.loads((ROOT / "benchmarks" / "results" / "accuracy_gap_pacs-128.json").read_text())
    of = {goal["name"]: goal["value"].partition(" on ")[0] for goal in gap["goals"]}
    adip = of["gap closed by VL2V-ADiP, K=4"].partition(" (")[0]
    assert f"K=4 closes {adip} on PACS and {100 * (ours - erm) / (teacher - erm):.0f} % on shapes" in shown
    default, thorough = (of[f"gap closed by {name}, K=4"] for name in ("default", "thorough"))
    assert f"`default` {default} on PACS, `thorough` {thorough}." in shown
