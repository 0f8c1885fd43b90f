"""Run a folder of proofs, one file after the other: at full length with a result file, or short without one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from result import RESULTS, Goal, commit, write_result

ROOT = Path(__file__).parent.parent

Row = dict[str, object]


def proof_options(name: str, description: str) -> argparse.ArgumentParser:
    """Return the options that every runner of proofs has."""
    options = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    options.add_argument("--only", default="", help="a part of the proofs' file names")
    form = options.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help="the same proofs with smaller counts; no result file")
    form.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="result file of a full run")
    return options


def run_proofs(name: str, only: str, out: Path | None, sizes: Mapping[str, str] | None = None) -> None:
    """Run `tests/<name>/test_*.py`; the figures of proofs that are not run are kept.

    Args:
        name: Name of the folder, and of the result.
        only: Part of the names of the files to run.
        out: Result file, written after every proof; `None` runs the short form and writes none.
        sizes: Environment variables for the proofs.

    Raises:
        SystemExit: A proof failed, or none has such a name.
    """
    proofs = [path for path in sorted((ROOT / "tests" / name).glob("test_*.py")) if only in _title(path)]
    if not proofs:
        sys.exit(f"no proof of tests/{name} has {only!r} in its name")
    rows, goals = ({}, []) if out is None else read_earlier(out)
    for proof in proofs:
        title = _title(proof)
        print(f"==> {title}", file=sys.stderr)
        row, found = run_proof(proof, title, sizes or {}, short=out is None)
        rows[title] = row
        goals = [goal for goal in goals if goal.name.split(": ")[0] != title] + found
        if out is not None:
            write_result(name, list(rows.values()), goals, out=out)
    failed = [title for title in map(_title, proofs) if rows[title]["failed"]]
    if out is None:
        _print_short(list(rows.values()), goals)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_proof(proof: Path, title: str, sizes: Mapping[str, str], *, short: bool = False) -> tuple[Row, list[Goal]]:
    """Run one file of proofs in a process of its own and return how long it took, and its figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        words = [sys.executable, "-m", "pytest", "-q", "-s", str(proof), f"--figures={figures}"]
        words += [] if short else ["--full"]
        started = time.monotonic()
        code = subprocess.run(words, cwd=ROOT, env=os.environ | dict(sizes), check=False).returncode
        minutes = (time.monotonic() - started) / 60
        found = json.loads(figures.read_text()) if figures.exists() else []
    goals = [Goal(f"{title}: {one['name']}", one["value"], one["goal"], one["met"]) for one in found]
    row = {"proof": title, "minutes": round(minutes, 1), "figures": len(goals), "failed": code != 0, "commit": commit()}
    return row, goals


def _title(proof: Path) -> str:
    return proof.stem.removeprefix("test_")


def _print_short(rows: Sequence[Row], goals: Sequence[Goal]) -> None:
    for goal in goals:
        print(f"{'met' if goal.met else 'NOT MET':>8}  {goal.name}: {goal.value} (goal {goal.goal})")
    for row in rows:
        print(f"{'FAILED' if row['failed'] else 'passed':>8}  {row['proof']}, {row['minutes']} minutes")
    print("Short form: smaller counts than in the quoted results; no result file was written.")


def read_earlier(path: Path) -> tuple[dict[str, Row], list[Goal]]:
    """Return the rows by name and the goals of an earlier run."""
    if not path.exists():
        return {}, []
    result = json.loads(path.read_text())
    return {str(row["proof"]): row for row in result["rows"]}, [Goal(**goal) for goal in result["goals"]]
