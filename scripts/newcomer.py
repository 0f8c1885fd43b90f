"""Walk the tutorial "From a folder of photographs to a model" as a newcomer does, in a new environment.

    python scripts/newcomer.py photos [--model-config clip.json --pretrained clip.safetensors] [--accuracy 93]

A vendor is started on this machine, with the packaged model or with yours. The commands are those of the page, one by
one, timed; the page says all that is typed. It fails if a command fails, if they are more than five, if they take
longer than `--minutes`, if the accuracy on source validation is below `--accuracy` percent, or if a photograph has no
prediction. `--same-packages` takes the dependencies from this environment in place of the package index.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from page_blocks import SHELL, blocks_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorials" / "photographs.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

from local_vendor import local_vendor  # noqa: E402

MOST_COMMANDS = 5
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def main() -> None:
    arguments = parse_arguments()
    photographs = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in IMAGES)
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        work = Path(name)
        started = time.monotonic()
        environment = install(work / "photos-env", same_packages=arguments.same_packages)
        print(f"installed in {time.monotonic() - started:.0f} s", flush=True)
        with local_vendor(
            work / "shop",
            account="newcomer",
            budget=100_000,
            options=vendor_words(arguments),
            settings=arguments.setting,
        ) as served:
            known = ("VL2V_VENDOR_URL", "VL2V_API_KEY")
            environment |= {name: served[name] for name in known} | {"PHOTOS": str(arguments.photos.resolve())}
            environment |= {"XDG_DATA_HOME": str(work / "share"), "HOME": str(work)}
            spent = walk(page_commands(), environment, work)
        faults = list(judge(work, spent, len(photographs), arguments))
    sys.exit("; ".join(faults) or None)


def page_commands() -> Sequence[str]:
    """Return the commands of the page after those that install and name the variables."""
    blocks = [block for block in blocks_of(PAGE, *SHELL) if not block.reason]
    return [command for block in blocks for command in block.commands if command.startswith("vl2v-client ")]


def install(folder: Path, *, same_packages: bool) -> dict[str, str]:
    """Make a new environment with this repository's client in it; return the variables of a shell that uses it."""
    venv.create(folder, with_pip=not same_packages)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VL2V_", "PYTHON"))}
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    if same_packages:
        import check_wheel

        _, wheel = check_wheel.build(folder / "wheel")
        check_wheel.install(wheel, folder, download=False)
    else:
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", f"{ROOT}[client]"], env=environment, check=True)
    return environment


def walk(commands: Sequence[str], environment: Mapping[str, str], work: Path) -> Sequence[float]:
    """Run the commands one by one as a shell does; return the seconds that each took. A failure ends the program."""
    seconds = []
    for command in commands:
        started = time.monotonic()
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command], env=dict(environment), cwd=work, check=False, text=True, stdout=-1
        )
        seconds.append(time.monotonic() - started)
        lines = done.stdout.splitlines()
        print("\n".join(lines if len(lines) < 40 else [*lines[:30], f"... {len(lines) - 30} more lines"]))
        print(f"  {seconds[-1]:.1f} s, exit code {done.returncode}", flush=True)
        if done.returncode != 0:
            sys.exit(f"{command} ended with {done.returncode}")
    return seconds


def judge(work: Path, seconds: Sequence[float], photographs: int, wanted: argparse.Namespace) -> Sequence[str]:
    """Return what is not as it should be."""
    report = json.loads((work / "my-model" / "report.json").read_text())
    accuracy = 100 * report["rows"][-1]["source_validation"]  # of the student that was exported
    print(
        f"{len(seconds)} commands, {sum(seconds):.0f} s; source validation {accuracy:.1f} %; {photographs} photographs"
    )
    with (work / "predictions.csv").open(newline="") as file:
        predicted = sum(1 for row in csv.DictReader(file) if not row.get("error"))
    faults = []
    if predicted != photographs:
        faults.append(f"{predicted} predictions for {photographs} photographs")
    if len(seconds) > MOST_COMMANDS:
        faults.append(f"the page has {len(seconds)} commands, more than {MOST_COMMANDS}")
    if sum(seconds) > 60 * wanted.minutes:
        faults.append(f"they took {sum(seconds):.0f} s, more than {wanted.minutes} minutes")
    if accuracy < wanted.accuracy:
        faults.append(f"{accuracy:.1f} % on source validation is below {wanted.accuracy} %")
    return faults


def vendor_words(arguments: argparse.Namespace) -> Sequence[str]:
    """Return the options of `vl2v-vendor serve` for the model."""
    named = {"--model-config": arguments.model_config, "--pretrained": arguments.pretrained}
    return [word for option, value in named.items() if value for word in (option, str(value))]


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return f"VL2V_VENDOR_{name.upper()}", value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs, class/file")
    parser.add_argument("--model-config", type=Path, help="the vendor's model, as open_clip's JSON")
    parser.add_argument("--pretrained", type=Path, help="its weights")
    parser.add_argument("--setting", type=_setting, action="append", default=[], help="the vendor's, as NAME=VALUE")
    parser.add_argument("--minutes", type=float, default=5, help="that the commands may take")
    parser.add_argument("--accuracy", type=float, default=0, help="percent on source validation, at least")
    parser.add_argument("--same-packages", action="store_true", help="dependencies from this environment")
    arguments = parser.parse_args()
    arguments.setting = dict(arguments.setting)
    return arguments


if __name__ == "__main__":
    main()
