"""The client's commands as a user types them, on one data set, cache and vendor."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.client.fake_vendor import API_KEY
from vl2v_client.cli.app import invoke as invoke_words
from vl2v_client.cli.console import show_error
from vl2v_client.cli.options import with_flags
from vl2v_client.config.run import TINY
from vl2v_client.core.errors import INTERRUPTED_EXIT_CODE, ClientError

_ABOUT_DATA = frozenset({"plan", "pilot", "buy", "distill", "sweep"})

_STEPS = ("--align-steps", "2", "--distill-steps", "2", "--batch-size", "2", "--evaluate-every", "2")
QUICK = (*_STEPS, "--device", "cpu", "--no-probe")
"""A training that learns little: a probe would often take the place of its student."""


@dataclass(frozen=True)
class Result:
    """What a command printed, its exit code, and the error that it ended with."""

    exit_code: int
    stdout: str
    stderr: str
    exception: ClientError | None = None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(words: list[str], environment: Mapping[str, str | None], answers: str = "") -> Result:
    """Run the command line `words` in this process; `answers` is what the user types."""
    known = {name: value for name, value in environment.items() if value is not None}
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, known),
        patch("sys.stdin", io.StringIO(answers)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name in environment.keys() - known.keys():
            os.environ.pop(name, None)
        error = None
        try:
            code = invoke_words(words)
        except ClientError as raised:
            show_error("error", with_flags(str(raised)))
            error, code = raised, raised.exit_code
            error.args = (with_flags(str(raised)),)
        except KeyboardInterrupt:
            code = INTERRUPTED_EXIT_CODE
    return Result(code, out.getvalue(), err.getvalue(), error)


class ClientShell:
    """Runs commands on `data` in a folder, and trains into `run` there; unless one is named, the student is `tiny`.

    Args:
        url: Address of the vendor.
        folder: Folder of data, cache and run.
        common: Words after `--data` of every command that is about the data set.
    """

    def __init__(self, url: str, folder: Path, *common: str) -> None:
        self.url = url
        self.folder, self.data, self.run_folder = folder, folder / "data", folder / "run"
        self._common = ("--data", str(self.data), *common)

    def run(self, command: str, *words: str, cache: str = "client.db", **environment: str | None) -> Result:
        known = {"VL2V_VENDOR_URL": self.url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(self.folder / cache)}
        common = self._common if command in _ABOUT_DATA else ()
        if command in _ABOUT_DATA and not {"--student", "--config"} & {*common, *words}:
            common = (*common, "--student", TINY)
        return invoke([command, *common, *words], {**known, **environment})

    def json(self, command: str, *words: str) -> Any:
        return self._read(self.run(command, *words, "--json"))

    def distill(self, *words: str, cache: str = "client.db") -> Any:
        """Train; returns the report."""
        return self._read(self.try_distill("--json", *words, cache=cache))

    def try_distill(self, *words: str, cache: str = "client.db") -> Result:
        """Train, or be refused."""
        return self.run("distill", "--out", str(self.run_folder), "--yes", *QUICK, *words, cache=cache)

    @staticmethod
    def _read(done: Result) -> Any:
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def read(self, name: str) -> Any:
        """A JSON file of the run."""
        return json.loads((self.run_folder / name).read_text())
