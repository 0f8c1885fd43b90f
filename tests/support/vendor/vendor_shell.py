"""`vl2v-vendor` as its staff types it, in this process."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from vl2v_vendor.cli.app import invoke as invoke_words


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(*words: str, **environment: str) -> Result:
    """Run a command; a refusal comes out as it is raised."""
    out, err = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
        code = invoke_words(words)
    return Result(code, out.getvalue(), err.getvalue())
