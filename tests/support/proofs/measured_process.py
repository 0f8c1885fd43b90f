"""A command run in a process of its own, started or forked, with its time and its largest memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.forked import FORKSERVER, be_program


@dataclass(frozen=True)
class Ended:
    """A command that has ended, or was killed because it took too long: then `code` is negative."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int


def run_measured(
    words: Sequence[str | Path], environment: Mapping[str, str], *, within_seconds: float, cwd: Path | None = None
) -> Ended:
    """Run a command; it is killed when its time is over."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            list(map(str, words)), env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd
        )
        clock = threading.Timer(within_seconds, process.kill)
        clock.start()
        _, status, usage = os.wait4(process.pid, 0)
        clock.cancel()
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
        return Ended(process.returncode, texts[0], texts[1], seconds, usage.ru_maxrss * 1024)


def run_measured_forked(
    program: str, words: Sequence[str | Path], environment: Mapping[str, str], *, within_seconds: float, cwd: Path
) -> Ended:
    """Run one of the two programs without its imports; what it starts with is a part of its memory."""
    with tempfile.TemporaryDirectory() as folder:
        out, err, peak = (Path(folder, name) for name in ("out", "err", "peak"))
        process = FORKSERVER.Process(
            target=_be_measured, args=(peak, cwd, program, list(map(str, words)), dict(environment), out, err)
        )
        process.start()
        began = time.monotonic()
        process.join(within_seconds)
        seconds = time.monotonic() - began
        process.kill()
        process.join()
        code = -1 if process.exitcode is None else process.exitcode
        process.close()
        peak_bytes = int(peak.read_text()) if peak.exists() else sys.maxsize
        return Ended(code, out.read_text(), err.read_text(), seconds, peak_bytes)


def _be_measured(peak: Path, cwd: Path, *command: Any) -> None:
    os.chdir(cwd)
    try:
        be_program(*command)
    finally:
        peak.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
