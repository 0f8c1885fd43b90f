"""The commands of a short run on one data set, cache and vendor."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from fake_vendor import API_KEY
from vl2v_client.cli.distill import distill
from vl2v_client.cli.evaluate import evaluate
from vl2v_client.cli.predict import predict

QUICK = ("--align-steps", "2", "--distill-steps", "2", "--batch-size", "2", "--evaluate-every", "2", "--device", "cpu")


class Shell:
    """Runs commands on one data set, cache and vendor."""

    def __init__(self, url: str, folder: Path) -> None:
        self._app = typer.Typer()
        for command in (distill, predict, evaluate):
            self._app.command()(command)
        self._environment = {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(folder / "client.db")}
        self.folder, self.data, self.run_folder = folder, folder / "data", folder / "run"

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self._app, words, env=self._environment)

    def distill(self, *words: str) -> Result:
        common = ("--data", str(self.data), "--target-domain", "sketch", "--views", "1", "--yes")
        return self.run("distill", *common, "--out", str(self.run_folder), *QUICK, *words)

    def read(self, name: str) -> dict[str, object]:
        return dict(json.loads((self.run_folder / name).read_text()))
