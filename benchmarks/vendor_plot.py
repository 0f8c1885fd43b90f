"""The throughput of `vendor.py` as a picture: images per second of every arm under its loads, and the bare model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_vendor import CONSOLE
from vendor_arms import INFINITY, NAIVE, OURS, RAW
from vendor_turns import LOADS, Row

_COLOURS = {OURS: "tab:blue", NAIVE: "tab:red", INFINITY: "tab:orange"}
_BAR_WIDTH = 0.25


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture; without matplotlib, say how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        CONSOLE.print("No picture without matplotlib: pip install matplotlib")
        return
    speeds = {(str(row["load"]), str(row["arm"])): row for row in rows if row["unit"] == "images/s" and row["median"]}
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Any = figure.subplots()
    for row in (row for (_, arm), row in speeds.items() if arm == RAW):
        axes.axhline(row["median"], color="0.5", linestyle="--", linewidth=1, label=f"{RAW}: {row['load']}")
    for place, (arm, colour) in enumerate(_COLOURS.items()):
        found = [(number, speeds[load, arm]) for number, load in enumerate(LOADS) if (load, arm) in speeds]
        if not found:
            continue
        medians = [_number(row, "median") for _, row in found]
        spread = [
            [middle - _number(row, "least") for middle, (_, row) in zip(medians, found, strict=True)],
            [_number(row, "most") - middle for middle, (_, row) in zip(medians, found, strict=True)],
        ]
        where = [number + (place - 1) * _BAR_WIDTH for number, _ in found]
        axes.bar(where, medians, _BAR_WIDTH, yerr=spread, color=colour, capsize=3, label=arm)
    axes.set_xticks(range(len(LOADS)), list(LOADS))
    axes.set_xlim(-0.5, len(LOADS) - 0.5)
    axes.set_ylabel("images per second, decoding included")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.legend(frameon=False, ncols=2, loc="upper left")
    figure.savefig(path, dpi=150)
    CONSOLE.print(f"Drawn to {path}")


def _number(row: Row, column: str) -> float:
    return float(str(row[column]))
