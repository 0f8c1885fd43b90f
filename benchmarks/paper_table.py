"""The paper's tables beside a sweep's, cell by cell; its numbers and their source are in `paper_numbers.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "paper_numbers.json"
TEACHER = "zero-shot teacher"


@dataclass(frozen=True)
class Measured:
    """What one method reached, in percent on DomainBed's 80 % of each target.

    Attributes:
        mean: Over the targets, which count alike, then over the seeds.
        error: Standard error over the seeds; `None` for one seed.
        by_target: Mean over the seeds, by target.
    """

    mean: float
    error: float | None
    by_target: Mapping[str, float]


def read_paper() -> dict[str, Any]:
    """Return the paper's tables with their source."""
    return dict(json.loads(FILE.read_text()))


def read_measured(report: Mapping[str, Any]) -> dict[str, Measured]:
    """Return the rows of a sweep's `report.json`, by method, the teacher's with them if all targets were asked."""
    found = {
        row["method"]: Measured(
            100 * row["mean"]["mean"],
            None if row["mean"]["standard_error"] is None else 100 * row["mean"]["standard_error"],
            {target: 100 * value["mean"] for target, value in row["by_target"].items()},
        )
        for row in report["tables"]["target_in"]
    }
    of_teacher = {target: 100 * value for target, value in report["teacher_target_in"].items()}
    if set(of_teacher) == set(report["targets"]):
        found[TEACHER] = Measured(sum(of_teacher.values()) / len(of_teacher), None, of_teacher)
    return found


def compare(dataset: str, measured: Mapping[str, Measured], targets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell of the paper's tables about a data set, then for each of ours that it lacks."""
    named = set()
    for table in read_paper()["tables"]:
        for row in table["rows"]:
            name = row.get("ours")
            ours, paper = measured.get(name), row["percent"].get(dataset)
            if paper is not None:
                named.add(name)
                yield _row(table["name"], row["row"], paper, ours, targets)
    for name, ours in measured.items():
        if name not in named:
            yield _row("no table", name, None, ours, targets)


def _row(table: str, name: str, paper: float | None, ours: Measured | None, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "table": table,
        "row": name,
        "paper": paper,
        "ours": None if ours is None else round(ours.mean, 2),
        "±": None if ours is None or ours.error is None else round(ours.error, 2),
        "difference": None if paper is None or ours is None else round(ours.mean - paper, 2),
        **{target: None if ours is None else round(ours.by_target[target], 2) for target in targets},
    }
