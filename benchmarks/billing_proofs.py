"""All proofs of the bill at full length: kills, races, lost answers, power loss, liars, and the state machines.

Takes about forty minutes on two cores. `--only NAME` runs the proofs whose name contains it and keeps the figures of
the others, so that a run that was stopped can be gone on with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result import RESULTS, Goal, write_result

ROOT = Path(__file__).parent.parent
PROOFS = ROOT / "tests" / "billing_proofs"

Row = dict[str, object]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--only", default="", help="a part of the proofs' file names")
    options.add_argument("--out", type=Path, default=RESULTS / "billing_proofs.json")
    chosen = options.parse_args()
    rows, goals = read_earlier(chosen.out)
    failed = []
    for proof in sorted(PROOFS.glob(f"test_*{chosen.only}*.py")):
        name = proof.stem.removeprefix("test_")
        print(f"==> {name}", file=sys.stderr)
        row, found = run_proof(proof, name)
        rows[name] = row
        goals = [goal for goal in goals if goal.name.split(": ")[0] != name] + found
        failed += [name] if row["failed"] else []
        write_result("billing_proofs", list(rows.values()), goals, out=chosen.out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_proof(proof: Path, name: str) -> tuple[Row, list[Goal]]:
    """One file of proofs in a process of its own: how long it took, and its figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        words = [sys.executable, "-m", "pytest", "-q", "-s", str(proof), "--full", f"--figures={figures}"]
        started = time.monotonic()
        code = subprocess.run(words, cwd=ROOT, check=False).returncode
        minutes = (time.monotonic() - started) / 60
        found = json.loads(figures.read_text()) if figures.exists() else []
    goals = [Goal(f"{name}: {one['name']}", one["value"], one["goal"], one["met"]) for one in found]
    return {"proof": name, "minutes": round(minutes, 1), "figures": len(goals), "failed": code != 0}, goals


def read_earlier(path: Path) -> tuple[dict[str, Row], list[Goal]]:
    """The rows by name and the goals of an earlier run."""
    if not path.exists():
        return {}, []
    result = json.loads(path.read_text())
    return {str(row["proof"]): row for row in result["rows"]}, [Goal(**goal) for goal in result["goals"]]


if __name__ == "__main__":
    main()
