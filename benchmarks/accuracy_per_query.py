"""Accuracy on unseen domains for the queries that it costs: table, curve over queries, methods and plans.

    python benchmarks/accuracy_per_query.py table [--seeds 3]
    python benchmarks/accuracy_per_query.py curve [--seeds 1]
    python benchmarks/accuracy_per_query.py methods --development --seeds 1 [-- --distill-steps 400]
    python benchmarks/accuracy_per_query.py plans --development --seeds 1
    python benchmarks/accuracy_per_query.py ablation --data DIR --target A --target B ...
    python benchmarks/accuracy_per_query.py gap --data DIR --target A --target B --target C ...
    python benchmarks/accuracy_per_query.py settings --data DIR --target A --target B --target C --seeds 1 ...
    python benchmarks/accuracy_per_query.py settings-of-one-view --data DIR --target A --target B --target C ...
    python benchmarks/accuracy_per_query.py table --data DIR --name NAME --model-config teacher.json
        --pretrained teacher.safetensors --student NAME --student-weights FILE --student-size 96 -- --batch-size 32
    python benchmarks/accuracy_per_query.py table --recorded

Without --data on shapes, drawn for each seed, with the packaged tiny models; with --development its unseen styles are
those that exist for choosing settings, so that the benchmark's stay unseen until they are reported. With --data on
images of your own, with a teacher of your own behind the vendor; the configuration is open_clip's, in the hub's form if
mean and deviation are not CLIP's. What follows `--` goes to every `vl2v-client distill`. Each run leaves lines in
`accuracy_NAME.runs.jsonl`, which table and curve share; killed, the benchmark goes on where it stopped, also on
another machine. With --recorded the table is made from these lines again, and nothing is trained or served; the other
words are those of the runs, with a `--target` for each domain. `--note` says what data and teacher are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from accuracy_arms import (
    ADIP_4,
    BESIDE_TEACHER,
    CHOSEN_4,
    ERM,
    ERM_ROWS,
    NO_SOFT_4,
    ONLINE,
    TEACHER,
    TENTH,
    Arm,
    curve_arms,
    gap_arms,
    method_arms,
    one_view_arms,
    plan_arms,
    setting_arms,
    table_arms,
)
from accuracy_goals import EVERYWHERE_GOALS, GAP_GOALS
from accuracy_plot import draw
from accuracy_runs import Bench, Cell, Outcome, measure, recorded
from accuracy_table import best_on_sources, gap_notes, goals_of, notes_of, of_the_gap, rows_of, share_goals
from local_vendor import local_vendor, run, split_words
from result import RESULTS, write_result
from source_settings import as_sources_choose, choices_of, link_sources, source_cells

import vl2v_vendor
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.shapes.drawing_styles import STYLES

SETTINGS, ONE_VIEW, GAP = "settings", "settings-of-one-view", "gap"
CHOOSING = (SETTINGS, ONE_VIEW)
ARMS = {
    "table": table_arms,
    "curve": curve_arms,
    "methods": method_arms,
    "plans": plan_arms,
    "ablation": setting_arms,
    GAP: gap_arms,
    SETTINGS: setting_arms,
    ONE_VIEW: one_view_arms,
}
REFERENCES = {
    "table": ONLINE,
    "curve": ONLINE,
    "methods": ADIP_4,
    "plans": TENTH,
    "ablation": NO_SOFT_4,
    GAP: ADIP_4,
}
"""The row that all others are compared with, besides ERM."""
FIRST_SEED = 100
"""Of shapes: settings were chosen on seeds below it, and a seed's pictures are the same in every data set."""
DEVELOPMENT = {
    "neon": ("photo", "sketch", "painting", "neon"),
    "mosaic": ("photo", "cartoon", "sketch", "mosaic"),
    "blueprint": ("photo", "cartoon", "painting", "blueprint"),
}
"""Unseen style: all styles of its data set."""


def main() -> None:
    arguments, options = parse_arguments()
    arms = chosen_arms(arguments)
    outcomes = obtain_outcomes(arguments, arms, options)
    if arguments.kind in CHOOSING:
        write_choices(arguments, arms, outcomes)
        return
    if arguments.kind == GAP:
        outcomes += best_on_sources(outcomes, [f"{ERM}, {row}" for row in ERM_ROWS], ERM)
        settings = results_folder(arguments) / f"accuracy_{SETTINGS}_{arguments.name}.json"
        if settings.exists():
            outcomes += as_sources_choose(outcomes, json.loads(settings.read_text()), CHOSEN_4)
    of_arms = [name for arm in arms for name in (arm.row, arm.erm_row) if name not in (None, ERM)]
    names = [TEACHER, *BESIDE_TEACHER, ERM, *of_arms, CHOSEN_4]
    is_shared = arguments.data is not None  # shapes are drawn for each seed, with pictures of its own
    compared = of_the_gap(outcomes) if arguments.kind == GAP else outcomes
    rows = rows_of(outcomes, names, REFERENCES[arguments.kind], shared_pictures=is_shared, compared=compared)
    name = f"accuracy_{arguments.kind}_{arguments.name}"
    goals = goals_of(outcomes, shared_pictures=is_shared) if arguments.kind == "table" else []
    notes = [*arguments.note, *notes_of(outcomes, shared_pictures=is_shared)]
    if arguments.kind == GAP:
        goals = share_goals(compared, shared_pictures=is_shared)
        goals += goals_of(compared, GAP_GOALS, shared_pictures=is_shared)
        if len(compared) < len(outcomes):
            goals += goals_of(outcomes, EVERYWHERE_GOALS, shared_pictures=is_shared, everywhere=True)
        notes += gap_notes(outcomes)
    path = write_result(name, rows, goals, out=results_folder(arguments) / f"{name}.json", notes=notes)
    if arguments.kind == "curve" and not arguments.recorded:
        draw(outcomes, path.with_suffix(".png"))


def chosen_arms(arguments: argparse.Namespace) -> list[Arm]:
    """The rows of a kind, or those of them that `--arm` names.

    Raises:
        SystemExit: A name is none of them.
    """
    arms = {arm.slug: arm for arm in ARMS[arguments.kind]()}
    unknown = sorted({*(arguments.arm or ())} - {*arms})
    if unknown:
        raise SystemExit(f"{arguments.kind} has no arm {', '.join(unknown)}; it has {', '.join(arms)}")
    return [arm for arm in arms.values() if not arguments.arm or arm.slug in arguments.arm]


def write_choices(arguments: argparse.Namespace, arms: list[Arm], outcomes: list[Outcome]) -> None:
    """Write which setting the sources of each target choose."""
    notes = [
        *arguments.note,
        "Accuracy in percent on a source that is left out, mean over the sources of each target; no picture of the "
        "target is read.",
    ]
    name = f"accuracy_{arguments.kind}_{arguments.name}"
    rows = choices_of(outcomes, arguments.target, arms)
    write_result(name, rows, [], out=results_folder(arguments) / f"{name}.json", notes=notes)


def obtain_outcomes(arguments: argparse.Namespace, arms: list[Arm], options: list[str]) -> list[Outcome]:
    """Run what the record lacks, behind a vendor of its own; with --recorded, read the record alone."""
    home = arguments.dir.resolve() / arguments.name
    student = [] if arguments.student is None else ["--student", arguments.student]
    student += [] if arguments.student_size is None else ["--student-size", str(arguments.student_size)]
    files = [] if arguments.student_weights is None else ["--student-weights", str(arguments.student_weights)]
    config, weights = teacher_files(arguments)
    local = ("--local-teacher", str(config), "--local-weights", str(weights))
    record = results_folder(arguments) / f"accuracy_{arguments.name}.runs.jsonl"
    bench = Bench({}, home, record, [*student, *options], files, local, arguments.jobs)
    if arguments.recorded:
        return recorded(bench, cells(arguments, arms, {}, home), incomplete=arguments.incomplete)
    if arguments.kind in CHOOSING:
        link_sources(arguments.data, arguments.target, home)
    serve = ("--model-config", str(config), "--pretrained", str(weights))
    with local_vendor(home, account="accuracy", budget=10_000_000, options=serve) as environment:
        if arguments.jobs > 1:
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // arguments.jobs))
        return measure(replace(bench, environment=environment), list(cells(arguments, arms, environment, home)))


def results_folder(arguments: argparse.Namespace) -> Path:
    """Where the record and the result are."""
    return RESULTS if arguments.out is None else arguments.out


def cells(arguments: argparse.Namespace, arms: list[Arm], environment: dict[str, str], home: Path) -> Iterator[Cell]:
    """Every run, seed by seed, so that a benchmark that is stopped has all of the first seeds."""
    everywhere = arguments.kind != "table" or arguments.data is None
    first_seed = FIRST_SEED if arguments.data is None and not arguments.development else 0
    if arguments.kind in CHOOSING:
        yield from source_cells(home, arguments.target, arms, range(arguments.seeds))
        return
    for seed in range(first_seed, first_seed + arguments.seeds):
        for place, (target, data) in enumerate(unseen_domains(arguments, seed, environment, home)):
            first = everywhere or place == 0
            for arm in arms:
                if first or arm.everywhere:
                    yield Cell(arm, data, target, seed, with_erm=first or arm.erm_everywhere)


def unseen_domains(
    arguments: argparse.Namespace, seed: int, environment: dict[str, str], home: Path
) -> Iterator[tuple[str, Path]]:
    """The targets of a seed, each with its data set; shapes are drawn if they are not there and are needed."""
    if arguments.data is not None:
        yield from ((target, arguments.data) for target in arguments.target or open_dataset(arguments.data).domains)
        return
    styles_of = DEVELOPMENT if arguments.development else dict.fromkeys(STYLES, STYLES)
    for target in arguments.target or styles_of:
        styles = styles_of[target]
        data = home / f"shapes-{seed}" / "-".join(styles)
        chosen = [word for style in styles for word in ("--style", style)]
        if not arguments.recorded:
            run(environment, "vl2v-client", "shapes", str(data), "--seed", str(seed), *chosen)
        yield target, data


def teacher_files(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Configuration and weights of the teacher; by default of the packaged one."""
    if arguments.model_config is not None:
        return arguments.model_config, arguments.pretrained
    packaged = Path(vl2v_vendor.__file__).parent / "assets" / "tiny-teacher.json"
    return packaged, packaged.with_suffix(".safetensors")


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    words, options = split_words(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=ARMS)
    parser.add_argument("--data", type=Path, default=None, help="domain/class/file; shapes by default")
    parser.add_argument("--development", action="store_true", help="shapes in the styles for choosing settings")
    parser.add_argument("--model-config", type=Path, default=None, help="open_clip model configuration")
    parser.add_argument("--pretrained", type=Path, default=None, help="its checkpoint")
    parser.add_argument("--student", default=None, help="timm name; picked by the data if left out")
    parser.add_argument("--student-weights", type=Path, default=None, help="safetensors under timm's names")
    parser.add_argument("--student-size", type=int, default=None, help="input size, pixels")
    parser.add_argument("--target", action="append", help="unseen domain, repeatable; all by default")
    parser.add_argument("--arm", action="append", help="only this row, as its folders are named; repeatable")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with its share of the cores")
    parser.add_argument("--dir", type=Path, default=Path("runs/accuracy-per-query"), help="purchases and runs")
    parser.add_argument("--name", default=None, help="of the data in the result's file names")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result files")
    parser.add_argument("--recorded", action="store_true", help="make the table of recorded runs again; run nothing")
    parser.add_argument("--incomplete", action="store_true", help="with --recorded: rows may lack runs of some seeds")
    parser.add_argument("--note", action="append", default=[], help="above the table and in its file; repeatable")
    arguments = parser.parse_args(words)
    if (arguments.model_config is None) != (arguments.pretrained is None):
        parser.error("--model-config and --pretrained belong together")
    if arguments.data is not None and arguments.name is None:
        parser.error("--data needs a --name for the result")
    if arguments.data is not None and arguments.model_config is None and not arguments.recorded:
        parser.error("--data needs a teacher: --model-config and --pretrained")
    if arguments.kind in CHOOSING and (arguments.data is None or len(arguments.target or ()) < 3):
        parser.error("settings are chosen on --data of three domains or more: name each with --target")
    if arguments.data is not None and arguments.development:
        parser.error("--development is of shapes, not of --data")
    arguments.name = arguments.name or ("development" if arguments.development else "shapes")
    return arguments, options


if __name__ == "__main__":
    main()
