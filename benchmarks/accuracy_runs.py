"""The runs of `accuracy_per_query.py`: each is one `distill`, and leaves a line for each row in a committed file.

A killed benchmark goes on where it stopped: a run in its folder, and the others after their last line.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accuracy_arms import BESIDE_TEACHER, ERM, TEACHER, Arm
from local_vendor import CONSOLE, run
from result import commit
from vector_classifiers import vector_predictions

from vl2v_client.evaluation.accuracy import ImagePrediction, read_predictions


@dataclass(frozen=True)
class Outcome:
    """One student, or the teacher itself, on one unseen domain.

    Attributes:
        row: of the table.
        options: of its arm and its training, as they are named today; a line of others is no outcome of this run.
        target: the unseen domain.
        seed: of data, views and training.
        accuracy: on all of the unseen domain, 0 to 1.
        in_domain: mean over the source domains' hold-outs, 0 to 1.
        calibration_error: on the unseen domain, at the temperature fitted on source validation.
        queries: that a vendor bills, or, online, that the teacher answered.
        amount_micro: their price.
        note: of the report, such as the learning rate that was chosen.
        commit: of the code that made it; nothing on lines from before it was kept.
        test_images: how many pictures of the unseen domain `accuracy` is of.
        pictures: names those pictures and their labels; nothing on lines from before it was kept, as with `right`.
        right: a digit for each picture, in the order of their paths: 1 where the row was right.
        seconds: that the `distill` took which made it, on a clock, with the rows that it made beside it and with
            whatever else the machine did; of its last call, if it was killed. `None` on lines from before it was kept.
    """

    row: str
    options: str
    target: str
    seed: int
    accuracy: float
    in_domain: float | None
    calibration_error: float | None
    queries: int
    amount_micro: int
    note: str
    commit: str = ""
    test_images: int = 0
    pictures: str = ""
    right: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Bench:
    """Where and how the runs are made.

    Attributes:
        environment: in which the client's commands find the vendor.
        home: of run folders.
        record: the file of outcomes, a JSON object a line.
        options: after every `distill`, and in the record: the student, its training.
        files: after every `distill`, and in no record: where the student's weights lie here.
        local_teacher: for the arms that buy nothing.
        jobs: runs at a time, each on one thread.
    """

    environment: Mapping[str, str]
    home: Path
    record: Path
    options: Sequence[str]
    files: Sequence[str]
    local_teacher: Sequence[str]
    jobs: int


@dataclass(frozen=True)
class Cell:
    """One arm on one data set: `distill --target-domain target --seed seed`."""

    arm: Arm
    data: Path
    target: str
    seed: int
    with_erm: bool


def measure(bench: Bench, cells: Iterable[Cell]) -> list[Outcome]:
    """Run what has no outcome yet, in order; returns the outcomes of all these cells."""
    known = read_outcomes(bench.record)
    wanted = list(cells)
    found = {_key(outcome) for outcome in known}
    missing = [cell for cell in wanted if not _rows_of(bench, cell) <= found]
    CONSOLE.print(f"{len(wanted)} runs, of which {len(wanted) - len(missing)} are done")
    with ThreadPoolExecutor(bench.jobs) as pool:
        for cell, made in zip(missing, pool.map(lambda cell: _run(bench, cell), missing), strict=True):
            outcomes = [one for one in made if _key(one) not in found]  # the teacher's rows may be there already
            known += outcomes
            bench.record.parent.mkdir(parents=True, exist_ok=True)
            with bench.record.open("a") as file:
                file.writelines(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes)
            scores = ", ".join(f"{outcome.row} {100 * outcome.accuracy:.1f}" for outcome in outcomes)
            CONSOLE.print(f"{cell.target}, seed {cell.seed}: {scores}")
    rows = set().union(*(_rows_of(bench, cell) for cell in wanted))
    return _of_rows(known, rows)


def recorded(bench: Bench, cells: Iterable[Cell], *, incomplete: bool = False) -> list[Outcome]:
    """The outcomes of these cells, of which each is in the record unless it may be `incomplete`; nothing is run.

    Raises:
        SystemExit: names the runs that are missing.
    """
    known, wanted = read_outcomes(bench.record), set().union(*(_rows_of(bench, cell) for cell in cells))
    missing = sorted(wanted - {_key(outcome) for outcome in known})
    if missing and not incomplete:
        words = "; ".join(f"{row} ({options}) on {target}, seed {seed}" for row, options, target, seed in missing[:5])
        raise SystemExit(f"{bench.record} lacks {len(missing)} runs, such as {words}: run without --recorded")
    return _of_rows(known, wanted)


def read_outcomes(record: Path) -> list[Outcome]:
    """What a file of outcomes holds; nothing if there is none."""
    lines = record.read_text().splitlines() if record.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def _of_rows(known: Iterable[Outcome], rows: set[tuple[str, ...]]) -> list[Outcome]:
    """The outcomes of these rows; those that stand beside a teacher's row come with it, if they were recorded."""
    beside = {(row, *rest) for name, *rest in rows if name == TEACHER for row in BESIDE_TEACHER}
    return [outcome for outcome in known if _key(outcome) in rows | beside]


def _key(outcome: Outcome) -> tuple[str, ...]:
    return outcome.row, outcome.options, outcome.target, str(outcome.seed)


def _rows_of(bench: Bench, cell: Cell) -> set[tuple[str, ...]]:
    rows = [cell.arm.row]
    rows += [cell.arm.erm_row] if cell.with_erm and cell.arm.erm_row else []
    rows += [TEACHER] if cell.arm.asks_the_teacher else []
    return {(row, _options_of(bench, cell), cell.target, str(cell.seed)) for row in rows}


def _options_of(bench: Bench, cell: Cell) -> str:
    return shlex.join([*cell.arm.options, *bench.options])


def _run(bench: Bench, cell: Cell) -> list[Outcome]:
    """Distil one student, with ERM beside it and the teacher's row if they are wished; keeps the report alone."""
    folder = bench.home / f"{cell.target}-{cell.seed}-{cell.arm.slug}"
    common = ("--data", str(cell.data), "--target-domain", cell.target, "--seed", str(cell.seed))
    words = [*cell.arm.options, *bench.options, *bench.files, "--out", str(folder)]
    words += bench.local_teacher if cell.arm.online or cell.arm.local else _spending(bench, cell, common)
    words += ["--online"] if cell.arm.online else []
    words += ["--baseline", "erm"] if cell.with_erm and cell.arm.erm_row else []
    environment = dict(bench.environment)
    started = time.perf_counter()
    run(environment, "vl2v-client", "distill", *common, *words, "--no-probe", "--yes", "--json")  # a row is its method
    seconds = round(time.perf_counter() - started, 1)
    if cell.arm.asks_the_teacher:
        run(environment, "vl2v-client", "evaluate", str(folder), "--teacher", "--yes", "--json")
    report, predictions = json.loads((folder / "report.json").read_text()), read_predictions(folder)
    outcomes = [replace(each, seconds=seconds) for each in _outcomes(bench, cell, report, predictions)]
    if cell.arm.asks_the_teacher:
        of_vectors = vector_predictions(folder, environment)
        outcomes += [_vector_outcome(bench, cell, report, row, of_vectors) for row in BESIDE_TEACHER]
    return outcomes


def _spending(bench: Bench, cell: Cell, common: Sequence[str]) -> list[str]:
    """The cap of an arm that buys a share of its images; the class prompts are bought in any case."""
    if cell.arm.share == 1:
        return []
    views = cell.arm.options[cell.arm.options.index("--views") + 1]
    plan = json.loads(run(dict(bench.environment), "vl2v-client", "plan", *common, "--views", views, "--json"))
    cap = plan["texts"] + round(cell.arm.share * plan["views"])
    chosen = [] if "--select" in cell.arm.options else ["--select", "random"]
    return [*chosen, "--max-queries", str(cap)]


def _outcomes(
    bench: Bench, cell: Cell, report: Mapping[str, Any], predictions: Sequence[ImagePrediction]
) -> list[Outcome]:
    bought, local = report["purchase"], report["local"]
    asked = bought or local or {"images": 0, "texts": 0}  # labels alone need no teacher
    names = {TEACHER: TEACHER, ERM: cell.arm.erm_row or "", report["rows"][-1]["name"]: cell.arm.row}
    return [
        Outcome(
            row=names[row["name"]],
            options=_options_of(bench, cell),
            target=cell.target,
            seed=cell.seed,
            accuracy=row["target"],
            in_domain=row["source_validation"],
            calibration_error=row["calibration_error"],
            queries=asked["images"] + asked["texts"] if row is report["rows"][-1] else 0,
            amount_micro=bought["amount_micro"] if bought and row is report["rows"][-1] else 0,
            note=row["note"],
            commit=commit(),
            test_images=report["counts"]["target"],
            **_of_pictures([each for each in predictions if each.classifier == row["name"]]),
        )
        for row in report["rows"]
        if row["target"] is not None and row["name"] in names and (row["name"] != TEACHER or cell.arm.asks_the_teacher)
    ]


def _vector_outcome(
    bench: Bench, cell: Cell, report: Mapping[str, Any], row: str, predictions: Sequence[ImagePrediction]
) -> Outcome:
    """A row made of one vector of each training image, which other rows have paid."""
    mine = [each for each in predictions if each.classifier == row]
    return Outcome(
        row=row,
        options=_options_of(bench, cell),
        target=cell.target,
        seed=cell.seed,
        accuracy=sum(each.label == each.predicted for each in mine) / len(mine),
        in_domain=None,
        calibration_error=None,
        queries=report["counts"]["train"],
        amount_micro=0,
        note="",
        commit=commit(),
        test_images=len(mine),
        **_of_pictures(mine),
    )


def _of_pictures(predictions: Sequence[ImagePrediction]) -> dict[str, str]:
    """What was right, picture by picture, and which pictures those are: the same for all rows that can be compared."""
    ordered = sorted(predictions, key=lambda each: each.path)
    names = "\n".join(f"{each.path}\t{each.label}" for each in ordered)
    right = "".join(str(int(each.label == each.predicted)) for each in ordered)
    return {"pictures": hashlib.sha256(names.encode()).hexdigest()[:16] if ordered else "", "right": right}
