"""How long `vl2v-client distill` takes on photographs with `default`, from an empty cache to a scored student.

    python benchmarks/default_run.py --data DIR --model-config teacher.json --pretrained teacher.safetensors

`--data` is what `vl2v-client distill --data` takes: `class/file`, or `domain/class/file` with its `--target-domain`
after `--`, where any other option of `distill` may follow. The vendor is local and sells the teacher; the time of its
start is not counted. Everything else is the preset's: student, views, size, steps, float32, the probe.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local_vendor import local_vendor, run, split_words
from result import Goal, write_result

LIMIT_SECONDS = 300


def main() -> None:
    words, options = split_words(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model-config", type=Path, required=True, help="open_clip model configuration")
    parser.add_argument("--pretrained", type=Path, required=True, help="its checkpoint")
    parser.add_argument("--note", action="append", default=[], help="what data and teacher are; repeatable")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(words)
    serve = ("--model-config", str(arguments.model_config), "--pretrained", str(arguments.pretrained))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        common = ("--data", str(arguments.data), *options)
        with local_vendor(home, account="default-run", budget=10_000_000, options=serve) as environment:
            started = time.perf_counter()
            run(environment, "vl2v-client", "distill", *common, "--out", str(home / "run"), "--yes", "--json")
            seconds = round(time.perf_counter() - started)
        report = json.loads((home / "run" / "report.json").read_text())
        config = json.loads((home / "run" / "config.json").read_text())
    images = report["counts"]["train"] + report["counts"]["validation"]
    goal = Goal(f"seconds, {images:,} photographs", seconds, f"<= {LIMIT_SECONDS}", seconds <= LIMIT_SECONDS)
    write_result("default_run", rows_of(report), [goal], out=arguments.out, notes=[*arguments.note, form_of(config)])


def form_of(config: dict[str, Any]) -> str:
    """What the preset resolved to, as far as time depends on it."""
    student, training = config["student"], config["training"]
    return (
        f"Student {student['architecture']} at {student['input']['size']} px, {config['purchase']['views']} views, "
        f"{training['align_steps']} align and {training['distill_steps']} distill steps of {training['batch_size']} "
        f"views per source domain, {'bfloat16' if training['bfloat16'] else 'float32'}."
    )


def rows_of(report: dict[str, Any]) -> list[dict[str, object]]:
    """Accuracy in percent on source validation, and on the target where there is one."""
    columns = [name for name in ("source_validation", "target") if any(row[name] is not None for row in report["rows"])]
    percents = {
        row["name"]: {name: f"{100 * row[name]:.1f}" for name in columns if row[name] is not None}
        for row in report["rows"]
    }
    return [{"": name, **dict.fromkeys(columns, ""), **percent} for name, percent in percents.items() if percent]


if __name__ == "__main__":
    main()
