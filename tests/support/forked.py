"""Processes that are forked from one which has imported both sides and PyTorch: the tests' commands start at once.

A new process spends more than four seconds of a core on the imports of `distill`, and half a second on a small run.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKSERVER = multiprocessing.get_context("forkserver")
# A fork server finds installed modules only, not those of the tests, and passes over those that are not installed.
FORKSERVER.set_forkserver_preload(
    [
        *(f"vl2v_client.cli.{name}" for name in ("app", "audit", "cache", "distill", "plan", "predict", "shapes")),
        *(f"vl2v_client.recipes.{name}" for name in ("buy", "distill", "evaluate", "plan")),
        *(f"vl2v_client.{name}" for name in ("audit.bill", "evaluation.image_predictions", "runs.vendor_source")),
        *("httpcore", "pytest", "rich.markdown", "vl2v_vendor.bootstrap", "vl2v_vendor.cli.app"),
    ]
)
_PROGRAMS = {"vl2v-client": "vl2v_client.cli", "vl2v-vendor": "vl2v_vendor.cli"}


def run_forked(
    program: str, words: Sequence[str], environment: Mapping[str, str], seconds: float = 600
) -> tuple[int | None, str, str]:
    """Run one of the two programs; returns its exit code, and what it wrote to standard output and standard error."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start_forked(program, words, environment, out, err)
        process.join(seconds)
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        return code, out.read_text(), err.read_text()


def start_forked(
    program: str, words: Sequence[str], environment: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """Start one of the two programs, to be killed; what it writes goes to files."""
    process = FORKSERVER.Process(target=be_program, args=(program, list(words), dict(environment), out, err))
    process.start()
    return process


def write_to(out: Path, err: Path) -> None:
    """Append all that this process writes from now on to files."""
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())


def be_program(program: str, words: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    """Do in this process, which was forked, what one of the two programs does, and end with its code."""
    write_to(out, err)
    os.environ.clear()
    os.environ.update(environment)
    if "torch" in sys.modules and "OMP_NUM_THREADS" in environment:  # which PyTorch has read before the fork
        import_module("torch").set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = [program, *words]
    import_module(_PROGRAMS[program]).main()
