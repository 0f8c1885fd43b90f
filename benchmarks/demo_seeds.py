"""The demo's table over every unseen style and several seeds: zero-shot teacher, ERM, VL2V-ADiP.

    python benchmarks/demo_seeds.py [--seeds 3] [--dir runs/demo-seeds] [--out FILE]
    python benchmarks/demo_seeds.py --development [-- --distill-steps 400 ...]

Same data, student and settings as `make demo`. With --development the unseen styles are those that exist for choosing
settings, and options after `--` try others: the benchmark's styles stay unseen until they are reported. Killed, it goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from leave_one_out import TEACHER, gains, measure, split_words, table
from local_vendor import local_vendor, run
from result import Goal, write_result

from vl2v_client.data.shapes import STYLES

BENCHMARK = dict.fromkeys(STYLES, STYLES)
DEVELOPMENT = {
    "neon": ("photo", "sketch", "painting", "neon"),
    "mosaic": ("photo", "cartoon", "sketch", "mosaic"),
    "blueprint": ("photo", "cartoon", "painting", "blueprint"),
}


def main() -> None:
    arguments, options = parse_arguments()
    home = arguments.dir.resolve()
    outcomes = []
    with local_vendor(home, account="demo-seeds", budget=1_000_000) as environment:
        for seed in range(arguments.seeds):
            for target, styles in (DEVELOPMENT if arguments.development else BENCHMARK).items():
                if arguments.target and target not in arguments.target:
                    continue
                data = home / f"shapes-{seed}" / "-".join(styles)
                chosen = [word for style in styles for word in ("--style", style)]
                run(environment, "vl2v-client", "shapes", str(data), "--seed", str(seed), *chosen)
                outcomes.append(measure(environment, data, target, seed, home / f"{target}-{seed}", options))
    rows = table(outcomes)
    gain, error = gains(outcomes)
    worst = min(float(str(row[TEACHER])) for row in rows)
    goals = [
        Goal("VL2V-ADiP above ERM, in standard errors of the paired difference", gain / error, "> 2", gain > 2 * error),
        Goal("VL2V-ADiP above ERM, points", gain, ">= 5", gain >= 5),
        Goal("zero-shot teacher on its worst style, percent", worst, ">= 90", worst >= 90),
    ]
    name = "demo_seeds_development" if arguments.development else "demo_seeds"
    write_result(name, rows, goals, out=arguments.out)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    words, options = split_words(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--development", action="store_true", help="on the development styles")
    parser.add_argument("--target", action="append", help="only this unseen style, repeatable")
    parser.add_argument("--dir", type=Path, default=Path("runs/demo-seeds"), help="data, purchases and runs")
    parser.add_argument("--out", type=Path, default=None, help="result file")
    return parser.parse_args(words), options


if __name__ == "__main__":
    main()
