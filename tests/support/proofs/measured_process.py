"""A command run in a process of its own, with its time and its largest memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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
