"""The published protocol on one of the paper's data sets, and the paper's table beside what came out, cell by cell.

    python benchmarks/reproduce.py --dataset PACS --data DIR --student vit_base_patch16_224 --vendor-url URL
    python benchmarks/reproduce.py --dataset PACS --data DIR --vendor-url URL --local-teacher ViT-B-16/openai
    python benchmarks/reproduce.py --dataset DomainNet --data DIR --duplicates domain_net_duplicates.txt

The vendor serves a real CLIP, `vl2v-vendor serve --model ViT-B-16 --pretrained openai`; VL2V_API_KEY is its key. First
the folder is compared with the published data set; nothing is bought or trained before that. Then `vl2v-client sweep`
with the preset `paper` holds out each domain in turn, with ERM and VL2V-ADiP, and one purchase serves all runs. With
--local-teacher a second sweep trains VL2V-SD, whose teacher answers on this machine about every view of every step.
Called again, it goes on where it stopped. What follows `--` goes to every sweep, such as `--device cuda:1`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_vendor import run, split_words
from paper_table import compare, read_measured, read_paper
from published_data import find_faults, published_sets
from result import print_result, write_result

from vl2v_client.core.errors import ClientError
from vl2v_client.data.folder import open_dataset


def main(words: Sequence[str] | None = None) -> None:
    own, options = split_words(sys.argv[1:] if words is None else words)
    arguments = parse_arguments(own)
    faults = check_data(arguments)
    home = arguments.out or Path("runs/reproduce") / f"{arguments.dataset}-{arguments.student}"
    reports = [
        sweep(arguments, options, home / "black-box", vendor_words(arguments), ["erm", "vl2v-adip", *arguments.method])
    ]
    if arguments.local_teacher is not None:
        reports.append(sweep(arguments, options, home / "white-box", teacher_words(arguments), ["vl2v-sd"]))
    measured = read_measured(reports[-1]) | read_measured(reports[0])
    rows = list(compare(arguments.dataset, measured, reports[0]["targets"]))
    name, notes = f"reproduce_{arguments.dataset.lower()}", notes_of(arguments, options, reports[0], faults)
    if arguments.json is None:
        print_result(name, rows, notes=notes)
    else:
        write_result(name, rows, [], out=Path(arguments.json) if arguments.json else None, notes=notes)


def check_data(arguments: argparse.Namespace) -> list[str]:
    """Return in what the data differ from the published ones, which is allowed with --other-data alone.

    Raises:
        SystemExit: They differ, or the folder cannot be read.
    """
    try:
        dataset = open_dataset(arguments.data)
    except ClientError as error:
        raise SystemExit(str(error)) from error
    faults = find_faults(dataset, published_sets()[arguments.dataset], arguments.duplicates)
    if faults and not arguments.other_data:
        lines = [*faults, "With --other-data the runs go on, and the table says so. Nothing was bought."]
        raise SystemExit("\n".join(lines))
    return faults


def sweep(
    arguments: argparse.Namespace, options: list[str], out: Path, teacher: list[str], methods: list[str]
) -> dict[str, Any]:
    """Run what is missing of a sweep, and return its report."""
    common = ["--data", str(arguments.data), "--preset", "paper", "--student", arguments.student, "--out", str(out)]
    common += [word for method in methods for word in ("--method", method)]
    common += [word for seed in range(arguments.seeds) for word in ("--seed", str(seed))]
    common += [] if arguments.steps is None else ["--distill-steps", str(arguments.steps)]
    run(dict(os.environ), "vl2v-client", "sweep", *common, *teacher, *options, show=True)
    return dict(json.loads((out / "report.json").read_text()))


def vendor_words(arguments: argparse.Namespace) -> list[str]:
    """Return the options that name the vendor, what is bought, and what VL2V-SD has not: a student, an align stage."""
    values = {"--vendor-url": arguments.vendor_url, "--views": arguments.views, "--align-steps": arguments.steps}
    values |= {"--student-weights": arguments.student_weights, "--student-size": arguments.student_size}
    words = [word for name, value in values.items() if value is not None for word in (name, str(value))]
    return [*words, *(["--yes"] if arguments.yes else [])]


def teacher_words(arguments: argparse.Namespace) -> list[str]:
    """Return the options that name the local teacher, asked as the published loop asks it."""
    weights = [] if arguments.local_weights is None else ["--local-weights", str(arguments.local_weights)]
    return ["--local-teacher", arguments.local_teacher, *weights, "--online"]


def notes_of(arguments: argparse.Namespace, options: list[str], report: dict[str, Any], faults: list[str]) -> list[str]:
    """Return the sources of both columns, and in what ours differs from the published protocol."""
    paper, seeds = read_paper(), len(report["seeds"])
    notes = [
        f"Paper: {paper['source']}; student {paper['student']}, teacher {paper['teacher']}.",
        f"Ours: student {report['student']}, teacher {report['teacher']}; percent on the 80 % of the unseen domain "
        f"that DomainBed's tables use. Seeds: {seeds} on one split; ± is the standard error over them.",
        f"Otherwise than published: the vendor is asked about stored views ({report['views']}), where the published "
        "loop asks about a new view of an image at every step, and ERM's learning rate is chosen on source validation.",
    ]
    if arguments.student != paper["student"] or arguments.student_weights or arguments.student_size:
        notes.append("The student is not the one of the paper's tables: no difference is one of methods.")
    if arguments.steps is not None:
        notes.append(f"Trained for {arguments.steps} steps a stage only: no difference is one of methods.")
    if options:
        notes.append(f"Options beside the preset: {' '.join(options)}.")
    if faults:
        notes.append("The data are not the published ones, so no difference says anything:")
    return [*notes, *faults]


def parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=published_sets(), required=True)
    parser.add_argument("--data", type=Path, required=True, help="domain/class/file, as DomainBed lays it out")
    parser.add_argument("--student", default="vit_base_patch16_224", help="one of the preset's, by timm's name")
    parser.add_argument("--student-weights", type=Path, default=None, help="safetensors under timm's names")
    parser.add_argument("--student-size", type=int, default=None, help="input size, pixels")
    parser.add_argument("--vendor-url", default=None, help="VL2V_VENDOR_URL if left out")
    parser.add_argument("--views", type=int, default=None, help="of each image that the vendor is asked about")
    parser.add_argument(
        "--method", action="append", default=[], help="beside ERM and VL2V-ADiP, such as kd; repeatable"
    )
    parser.add_argument("--local-teacher", default=None, help="for VL2V-SD: open_clip's NAME/TAG, or a config JSON")
    parser.add_argument("--local-weights", type=Path, default=None, help="checkpoint of the local teacher")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument(
        "--steps", type=int, default=None, help="of each stage, to try the path; as published if left out"
    )
    parser.add_argument("--duplicates", type=Path, default=None, help="DomainBed's list of duplicates in DomainNet")
    parser.add_argument("--other-data", action="store_true", help="go on with data that are not the published ones")
    parser.add_argument("--out", type=Path, default=None, help="folder of the runs")
    parser.add_argument("--yes", action="store_true", help="spend without asking")
    in_results = "write the result, to benchmarks/results/reproduce_DATASET.json if no file is named"
    parser.add_argument("--json", metavar="FILE", nargs="?", default=None, const="", help=in_results)
    arguments = parser.parse_args(words)
    if arguments.local_weights is not None and arguments.local_teacher is None:
        parser.error("--local-weights needs the model that they are of: --local-teacher")
    return arguments


if __name__ == "__main__":
    main()
