"""Runs a folder of proofs at full length, one file after the other, and makes a result file of their figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from result import RESULTS, Goal, commit, write_result

ROOT = Path(__file__).parent.parent

Row = dict[str, object]


def proof_options(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every runner of proofs has."""
    options = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    options.add_argument("--only", default="", help="a part of the proofs' file names")
    options.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    return options


def run_proofs(name: str, only: str, out: Path, sizes: Mapping[str, str] | None = None) -> None:
    """Run `tests/<name>/test_*.py`; the figures of proofs that are not run are kept.

    Args:
        name: of the folder, and of the result.
        only: a part of the names of the files to run.
        out: the result file, written after every proof.
        sizes: environment variables for the proofs.
    """
    rows, goals = read_earlier(out)
    failed = []
    for proof in sorted((ROOT / "tests" / name).glob("test_*.py")):
        title = proof.stem.removeprefix("test_")
        if only not in title:
            continue
        print(f"==> {title}", file=sys.stderr)
        row, found = run_proof(proof, title, sizes or {})
        rows[title] = row
        goals = [goal for goal in goals if goal.name.split(": ")[0] != title] + found
        failed += [title] if row["failed"] else []
        write_result(name, list(rows.values()), goals, out=out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_proof(proof: Path, title: str, sizes: Mapping[str, str]) -> tuple[Row, list[Goal]]:
    """One file of proofs in a process of its own: how long it took, and its figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        words = [sys.executable, "-m", "pytest", "-q", "-s", str(proof), "--full", f"--figures={figures}"]
        started = time.monotonic()
        code = subprocess.run(words, cwd=ROOT, env=os.environ | dict(sizes), check=False).returncode
        minutes = (time.monotonic() - started) / 60
        found = json.loads(figures.read_text()) if figures.exists() else []
    goals = [Goal(f"{title}: {one['name']}", one["value"], one["goal"], one["met"]) for one in found]
    row = {"proof": title, "minutes": round(minutes, 1), "figures": len(goals), "failed": code != 0, "commit": commit()}
    return row, goals


def read_earlier(path: Path) -> tuple[dict[str, Row], list[Goal]]:
    """The rows by name and the goals of an earlier run."""
    if not path.exists():
        return {}, []
    result = json.loads(path.read_text())
    return {str(row["proof"]): row for row in result["rows"]}, [Goal(**goal) for goal in result["goals"]]
