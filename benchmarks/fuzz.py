"""Fuzz both sides: changed requests, acts, cards, answers, texts and pictures, each made again by its number.

By default all classes at full length: 100,000 inputs of each in process, 20,000 pictures, and 20,000 requests over raw
HTTP. Nothing may end in a 5xx, a hang, a crash, an exception that nobody declared or a wrong bill, and memory may grow
by 5 % in the second half. A run that was killed goes on from its record when it is started again with the same
`--record` and `--seed`. A class that is done is not tried again: choose another seed, or remove the folder of records.
What finds something is written into `--corpus`, from which the suite tries it again.

    python benchmarks/fuzz.py --class json --count 2000
    python benchmarks/fuzz.py --class json --case 1234

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from result import RESULTS, Goal, write_result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.fuzz.record import Record, make_case  # noqa: E402
from support.fuzz.subjects import CLASSES  # noqa: E402
from support.fuzz.worker import Order, run_class, try_again  # noqa: E402

CORPUS = ROOT / "tests" / "fixtures" / "corpus"
MOST_GROWTH_PERCENT = 5.0
_SHORT_SHARE = 100


def main() -> None:
    """Fuzz what the command line names; exit with 1 if something was found."""
    chosen = _options().parse_args()
    names = [chosen.name] if chosen.name else list(CLASSES)
    if chosen.case is not None:
        _show_case(names[0], chosen.seed, chosen.case, chosen.pictures)
        return
    rows, goals = [], []
    for name in names:
        count = chosen.count or CLASSES[name].count // (_SHORT_SHARE if chosen.short else 1)
        print(f"==> {name}: {count:,} inputs", file=sys.stderr)
        record = run_class(Order(name, count, chosen.seed, chosen.record, chosen.corpus, chosen.pictures))
        rows.append(_row(name, record))
        goals += _goals(name, record)
        _print(name, record)
    if chosen.out is not None:
        write_result("fuzz", rows, goals, out=chosen.out)
    if not all(goal.met for goal in goals):
        sys.exit("something was found; `--class NAME --case NUMBER` shows an input and tries it again")


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--class", dest="name", choices=CLASSES, help="one class alone; all if left out")
    options.add_argument("--count", type=int, help="inputs of each class; 100,000, or 20,000 pictures and raw requests")
    options.add_argument("--short", action="store_true", help="a hundredth of that")
    options.add_argument("--seed", type=int, default=0, help="other inputs")
    options.add_argument("--case", type=int, metavar="NUMBER", help="show one input of `--class`, and try it again")
    options.add_argument("--pictures", type=Path, metavar="FOLDER", help="pictures to change, beside those made here")
    options.add_argument("--record", type=Path, default=ROOT / "build" / "fuzz", help="folder of records")
    options.add_argument("--corpus", type=Path, default=CORPUS, help="folder for what is found")
    options.add_argument("--out", type=Path, nargs="?", const=RESULTS / "fuzz.json", help="write a result file")
    return options


def _row(name: str, record: Record) -> dict[str, object]:
    return {
        "class": name,
        "inputs": record.done,
        "cpu_minutes": round(record.seconds / 60, 1),
        "per_cpu_second": round(record.done / max(record.seconds, 1e-9)),
        "found": len(record.found),
        "memory_growth_percent": record.growth_percent,
    }


def _goals(name: str, record: Record) -> list[Goal]:
    goals = [Goal(f"{name}: found in {record.done:,} inputs", len(record.found), "0", not record.found)]
    if record.growth_percent is not None and record.done >= 10_000:
        growth = record.growth_percent
        met = growth <= MOST_GROWTH_PERCENT
        goals.append(Goal(f"{name}: memory growth, percent", growth, f"<= {MOST_GROWTH_PERCENT:g}", met))
    return goals


def _print(name: str, record: Record) -> None:
    ends = ", ".join(f"{outcome} {number:,}" for outcome, number in sorted(record.outcomes.items()))
    row = _row(name, record)
    print(f"{name}: {ends}; {row['per_cpu_second']} a second of processor time; memory {record.growth_percent} %")
    for number, fault in record.found.items():
        print(f"  FOUND {number}: {fault}")


def _show_case(name: str, seed: int, number: int, pictures: Path | None) -> None:
    subject = CLASSES[name].open(pictures)
    case = make_case(subject.make, seed, name, number)
    subject.finish()
    print(repr(case) if len(case) < 4000 else f"{case[:4000]!r}... ({len(case):,} bytes)")
    for what, told in try_again(name, case, pictures).items():
        print(f"{what}: {told}")


if __name__ == "__main__":
    main()
