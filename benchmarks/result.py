"""The form that every benchmark's result takes: a table for people, a JSON file with machine, versions and command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "timm", "open_clip_torch", "numpy", "fastapi", "sqlalchemy", "httpx", "pillow")


@dataclass(frozen=True)
class Goal:
    """An acceptance line that the benchmark decides, with the value it measured."""

    name: str
    value: float | int | str
    goal: str
    met: bool


def write_result(
    name: str,
    rows: Sequence[Mapping[str, object]],
    goals: Sequence[Goal],
    *,
    out: Path | None,
    notes: Sequence[str] = (),
) -> Path:
    """Print `rows` and `goals` as tables and write them to `out` (default: `benchmarks/results/<name>.json`).

    Args:
        name: Name of the result.
        rows: Lines of the table, all with the same columns.
        goals: Acceptance lines that the rows decide.
        out: File to write.
        notes: How the figures are to be read; printed above the table and written beside the rows.
    """
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "name": name,
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        **({"notes": list(notes)} if notes else {}),
        "rows": list(rows),
        "goals": [asdict(goal) for goal in goals],
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    console = print_result(name, rows, goals, notes)
    console.print(f"Written to {path}")
    return path


def print_result(
    name: str, rows: Sequence[Mapping[str, object]], goals: Sequence[Goal] = (), notes: Sequence[str] = ()
) -> Console:
    """Print notes, then `rows` as a table, then `goals`; returns the console for what follows."""
    console = Console(width=max(120, Console().width))  # a log has room for every column
    for note in notes:
        console.print(note, markup=False)
    console.print(_table(name, rows))
    for goal in goals:
        console.print(f"{'met' if goal.met else 'NOT MET':>8}  {goal.name}: {goal.value} (goal {goal.goal})")
    return console


def commit() -> str:
    """The commit of this working tree, `-dirty` if anything but results was changed; unknown without git."""
    root = Path(__file__).parent.parent
    done = subprocess.run(["git", "describe", "--always"], cwd=root, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", ".", f":!{RESULTS.relative_to(root)}"], cwd=root, capture_output=True
    )
    return f"{done.stdout.strip()}{'-dirty' if changed.returncode else ''}" if done.stdout else "unknown"


def _table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    table = Table(title=title)
    for place, column in enumerate(rows[0] if rows else ()):
        justify = "left" if isinstance(rows[0][column], str) else "right"
        table.add_column(column, justify=justify, no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _machine() -> dict[str, object]:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) // 2**20 for line in _read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {"system": platform.platform(), "processor": cpu, "cores": os.cpu_count(), "memory_gib": memory}


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
