"""The curve of `accuracy_per_query.py` as a picture: accuracy on the unseen domains over queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy_arms import ERM, ERM_FRESH, MORE_VIEWS, ONLINE, TEACHER
from accuracy_runs import Outcome
from local_vendor import CONSOLE

from vl2v_client.reports.sweep_report import spread

_LEVELS = {ONLINE: "tab:green", ERM: "tab:red", ERM_FRESH: "tab:pink"}
_APART = (ONLINE, MORE_VIEWS)
"""Rows of VL2V-ADiP that are no points of its line."""
_LINES = {"VL2V-ADiP, ": "tab:blue", "default, ": "tab:orange"}


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the picture; without matplotlib, say how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        CONSOLE.print("No picture without matplotlib: pip install matplotlib")
        return
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Any = figure.subplots()
    for row, colour in _LEVELS.items():
        accuracies = [100 * outcome.accuracy for outcome in outcomes if outcome.row == row]
        if accuracies:
            axes.axhline(mean(accuracies), color=colour, linestyle="--", linewidth=1, label=row)
    for start, colour in _LINES.items():
        points = _points([each for each in outcomes if each.row.startswith(start) and each.row not in _APART])
        if points:
            queries, means, errors = zip(*points, strict=True)
            name = start.rstrip(", ")
            axes.errorbar(queries, means, yerr=errors, color=colour, marker="o", capsize=3, label=name)
    teacher = [100 * outcome.accuracy for outcome in outcomes if outcome.row == TEACHER]
    if teacher:
        axes.set_title(f"the zero-shot teacher: {mean(teacher):.1f} %", fontsize="medium", color="0.4")
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlabel("queries bought")
    axes.set_ylabel("accuracy on unseen domains, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150)
    CONSOLE.print(f"Drawn to {path}")


def _points(outcomes: Sequence[Outcome]) -> list[tuple[float, float, float]]:
    """Queries, mean accuracy in percent and its standard error over seeds, by row, in the order of queries."""
    points = []
    for row in {outcome.row for outcome in outcomes}:
        mine = [outcome for outcome in outcomes if outcome.row == row]
        seeds = {outcome.seed for outcome in mine}
        found = spread([100 * mean(outcome.accuracy for outcome in mine if outcome.seed == seed) for seed in seeds])
        points.append((mean(outcome.queries for outcome in mine), found.mean, found.standard_error or 0.0))
    return sorted(points)
