"""Leave one domain out on a data set of your own, with a teacher of your own behind the vendor.

    python benchmarks/real_images.py --data DIR --model-config model.json --pretrained teacher.safetensors
        --student tf_efficientnet_lite0 --student-weights student.safetensors [--target NAME ...] -- --views 2

Everything after `--` goes to `vl2v-client distill`. Killed, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from leave_one_out import gains, measure, split_words, table
from local_vendor import local_vendor
from result import Goal, write_result


def main() -> None:
    arguments, options = parse_arguments()
    home = arguments.dir.resolve()
    targets = arguments.target or sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
    student = ["--student", arguments.student]
    if arguments.student_weights:
        student += ["--student-weights", str(arguments.student_weights)]
    if arguments.student_size:
        student += ["--student-size", str(arguments.student_size)]
    for channel in ("mean", "std"):
        value = getattr(arguments, f"image_{channel}")
        if value is not None:
            os.environ[f"VL2V_VENDOR_IMAGE_{channel.upper()}"] = f"[{value},{value},{value}]"
    serve = ("--model-config", str(arguments.model_config), "--pretrained", str(arguments.pretrained))
    with local_vendor(home, account="real-images", budget=1_000_000, options=serve) as environment:
        outcomes = [
            measure(environment, arguments.data, target, seed, home / f"{target}-{seed}", [*student, *options])
            for target in targets
            for seed in range(arguments.seeds)
        ]
    gain, error = gains(outcomes)
    goals = [Goal("VL2V-ADiP above ERM, points (standard error)", f"{gain:.2f} ({error:.2f})", "> 0", gain > 0)]
    write_result(arguments.name, table(outcomes), goals, out=arguments.out)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    words, options = split_words(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="domain/class/file")
    parser.add_argument("--model-config", type=Path, required=True, help="open_clip model configuration")
    parser.add_argument("--pretrained", type=Path, required=True, help="its checkpoint")
    parser.add_argument("--image-mean", type=float, default=None, help="the teacher's, if not CLIP's; all channels")
    parser.add_argument("--image-std", type=float, default=None, help="the teacher's, if not CLIP's; all channels")
    parser.add_argument("--student", default="tiny", help="timm name")
    parser.add_argument("--student-weights", type=Path, default=None, help="safetensors under timm's names")
    parser.add_argument("--student-size", type=int, default=None, help="input size, pixels")
    parser.add_argument("--target", action="append", help="unseen domain, repeatable; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--dir", type=Path, default=Path("runs/real-images"), help="purchases and runs")
    parser.add_argument("--name", default="real_images", help="of the result")
    parser.add_argument("--out", type=Path, default=None, help="result file")
    return parser.parse_args(words), options


if __name__ == "__main__":
    main()
