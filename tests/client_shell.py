"""The client's commands as a user types them, on one data set, cache and vendor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from fake_vendor import API_KEY
from vl2v_client.cli.app import command_tree

_ABOUT_DATA = frozenset({"plan", "pilot", "buy", "distill", "sweep"})

QUICK = ("--align-steps", "2", "--distill-steps", "2", "--batch-size", "2", "--evaluate-every", "2", "--device", "cpu")


class ClientShell:
    """Runs commands on `data` in a folder, and trains into `run` there.

    Args:
        url: of the vendor.
        folder: of data, cache and run.
        common: words after `--data` of every command that is about the data set.
    """

    def __init__(self, url: str, folder: Path, *common: str) -> None:
        self._url = url
        self.folder, self.data, self.run_folder = folder, folder / "data", folder / "run"
        self._common = ("--data", str(self.data), *common)

    def run(self, command: str, *words: str, cache: str = "client.db", **environment: str | None) -> Result:
        known = {"VL2V_VENDOR_URL": self._url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(self.folder / cache)}
        common = self._common if command in _ABOUT_DATA else ()
        return CliRunner().invoke(command_tree(), [command, *common, *words], env={**known, **environment})

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
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    def read(self, name: str) -> Any:
        """A JSON file of the run."""
        return json.loads((self.run_folder / name).read_text())
