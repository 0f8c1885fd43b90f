"""The whole road on one machine, as its users type it: sell, buy, distil, evaluate, audit.

    python benchmarks/demo.py [--dir demo] [--target sketch] [--seed 0]

Starts a vendor with the tiny teacher on a free port, draws the `shapes` data set, and runs the client's commands
against it. Nothing is downloaded. Everything is left in --dir to look at.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from local_vendor import CONSOLE, local_vendor, run
from rich.table import Table

MARKER = ".vl2v-demo"
PUBLISHED_VIEWS = ("--train-views", "4", "--view-recipe", "standard")
"""The published method trains on the views that are bought; the default preset adds more."""


def main() -> None:
    arguments = parse_arguments()
    home = empty_folder(arguments.dir.resolve())
    data = ("--data", str(home / "shapes"), "--target-domain", arguments.target, "--seed", str(arguments.seed))
    started = time.monotonic()
    tell("A vendor with nothing configured: SQLite, the tiny CLIP, a key with a budget of 5,000 queries.")
    with local_vendor(home, account="demo", budget=5000) as environment:

        def client(why: str, *words: str) -> None:
            tell(why)
            run(environment, "vl2v-client", *words, show=True)

        client("Ten classes in four styles, drawn on the spot.", "shapes", str(home / "shapes"))
        client("What it will cost, before a query is spent.", "plan", *data)
        client(
            f"Buy, align, distil. '{arguments.target}' is not trained on. ERM, labels alone, is the row to beat.",
            *("distill", *data, "--baseline", "erm", *PUBLISHED_VIEWS, "--out", str(home / "run"), "--yes"),
        )
        client(
            "Score the unseen style. The teacher's own row costs one query for each of its images.",
            *("evaluate", str(home / "run"), "--teacher", "--yes"),
        )
        client("Check the vendor's bill against our own books.", "audit")
    print_result(json.loads((home / "run" / "report.json").read_text()))
    CONSOLE.print(
        f"\n[bold green]Done in {time.monotonic() - started:.0f} s.[/] Look at {home / 'run' / 'report.html'}."
    )


def print_result(report: dict[str, Any]) -> None:
    """The table of accuracies, and the bill."""
    table = Table("accuracy, percent", "source validation", f"unseen {report['target_domain']}", header_style="bold")
    for row in (row for row in report["rows"] if row["name"] not in ("chance", "majority class")):
        shares = (row["source_validation"], row["target"])
        table.add_row(row["name"], *("-" if share is None else f"{100 * share:.1f}" for share in shares))
    purchase = report["purchase"]
    queries = purchase["images"] + purchase["texts"]
    CONSOLE.print(table)
    CONSOLE.print(
        f"The bill: {queries:,} queries for the student, {purchase['amount_micro'] / 1e6:.4f} {purchase['currency']}; "
        f"{purchase['test_images']:,} more for the teacher's own row. The audit found both books equal."
    )


def tell(why: str) -> None:
    CONSOLE.print(f"\n[bold]{why}[/]")


def empty_folder(home: Path) -> Path:
    """Make `home`, or empty it if an earlier demo made it."""
    if home.exists() and any(home.iterdir()):
        if not (home / MARKER).exists():
            sys.exit(f"{home} holds something that is not a demo: choose another --dir")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARKER).touch()
    return home


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dir", type=Path, default=Path("demo"), help="where everything goes; an earlier demo is removed"
    )
    parser.add_argument("--target", default="sketch", help="the style that the student is not trained on")
    parser.add_argument("--seed", type=int, default=0, help="of views, sampling and initialisation")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command begins the demo again\n")
        sys.exit(130)
