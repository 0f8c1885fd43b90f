"""Peak memory and time of the command `distill` on ten thousand bought views, against a real vendor.

Draws the `shapes` data set with 2,520 training images, buys four views of each, and trains the tiny student for 5 and
10 steps, so that the purchase, the rendering and the loading are measured rather than the training. The vendor is a
process of its own that sells vectors made of digests; its memory is not counted. The peak is that of the client's
resident set, pages of mapped files included. *cold* begins with an empty cache, *warm* is another run with the cache of
the first. Each round begins anew.

    python benchmarks/distill_memory.py [--rounds 3] [--baseline OLDER_RESULT.json]

With a baseline, the goal is that neither median peak is more than 2 % above the one there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from local_vendor import local_vendor, run
from result import Goal, write_result

TARGET = "sketch"
VIEWS = 4
TEACHER = {"VL2V_VENDOR_HASH_IMAGE_SIZE": "64", "VL2V_VENDOR_HASH_EMBEDDING_DIM": "128"}
TRAINING = (
    *("--views", str(VIEWS), "--train-views", str(VIEWS), "--view-recipe", "standard"),
    *(
        "--align-steps",
        "5",
        "--distill-steps",
        "10",
        "--evaluate-every",
        "5",
        "--device",
        "cpu",
        "--no-probe",
        "--yes",
        "--json",
    ),
)
TOLERANCE = 1.02
"""Single peaks of the same code differ by 3 % from run to run, so medians are compared, and these with a margin."""

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-class", type=int, default=105, help="of each style")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--baseline", type=Path, help="result of an older commit on the same machine")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        run(dict(os.environ), "vl2v-client", "shapes", str(data), "--images-per-class", str(arguments.images_per_class))
        for number in range(1, arguments.rounds + 1):
            rows += measure(Path(folder) / "round", data, number)
    rows += [median_row(rows, cache) for cache in ("cold", "warm")]
    write_result("distill_memory", rows, goals(rows, arguments.baseline), out=arguments.out)


def measure(home: Path, data: Path, number: int) -> list[Row]:
    """Run `distill` with an empty cache and again with a full one; a row for each."""
    rows: list[Row] = []
    with local_vendor(
        home, account="memory", budget=1_000_000, options=("--encoder", "hash"), settings=TEACHER
    ) as environment:
        for cache in ("cold", "warm"):
            words = ["distill", "--data", str(data), "--target-domain", TARGET, "--out", str(home / cache), *TRAINING]
            seconds, cpu_seconds, peak_mib, report = run_measured(environment, words)
            rows.append(
                {
                    "cache": cache,
                    "round": str(number),
                    "images": report["counts"]["train"],
                    "views": report["counts"]["train"] * VIEWS,
                    "peak MiB": round(peak_mib, 1),
                    "seconds": round(seconds, 2),
                    "CPU seconds": round(cpu_seconds, 2),
                }
            )
    shutil.rmtree(home)
    return rows


def run_measured(environment: Mapping[str, str], words: list[str]) -> tuple[float, float, float, dict]:  # type: ignore[type-arg]
    """Wall time, CPU time, peak memory in MiB and the report of one client command, its start included."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-m", "vl2v_client", *words], env=dict(environment), stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        answer = out.read()
    if process.returncode != 0:
        sys.exit(f"distill ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(answer)


def median_row(rows: list[Row], cache: str) -> Row:
    """The medians over the rounds."""
    mine = [row for row in rows if row["cache"] == cache]
    middle = {name: median(float(str(row[name])) for row in mine) for name in ("peak MiB", "seconds", "CPU seconds")}
    return {**mine[0], "round": "median", **middle}


def goals(rows: list[Row], baseline: Path | None) -> list[Goal]:
    """No larger than the baseline's medians; none without a baseline."""
    if baseline is None:
        return []
    older = json.loads(baseline.read_text())
    before = {row["cache"]: float(row["peak MiB"]) for row in older["rows"] if row["round"] == "median"}
    now = {str(row["cache"]): float(str(row["peak MiB"])) for row in rows if row["round"] == "median"}
    return [
        Goal(
            f"peak of distill, {cache}, MiB; at {older['commit']}: {before[cache]:.1f}",
            peak,
            f"<= {before[cache] * TOLERANCE:.1f}",
            peak <= before[cache] * TOLERANCE,
        )
        for cache, peak in now.items()
    ]


if __name__ == "__main__":
    main()
