"""A hyper-parameter is declared once: command line, YAML, `config.json` and the report have it from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.client.buying_bench import draw_domains
from support.client.client_shell import QUICK
from support.client.fake_vendor import API_KEY, FakeVendor, served

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(vendor: FakeVendor) -> Iterator[str]:
    with served(vendor) as url:
        yield url


def _run(*commands: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run command lines one after the other, until one fails."""
    known = {"VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(folder / "client.db"), "COLUMNS": "80", **environment}
    command = [sys.executable, str(ROOT / "tests/support/client/client_with_sharpness.py"), json.dumps(commands)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **known})


def test_help_shows_it_with_unit_default_and_range(tmp_path: Path) -> None:
    wrong = ("distill", "--data", "x", "--sharpness", "0")
    done = _run(("distill", "--help"), wrong, folder=tmp_path)
    assert "--sharpness FLOAT" in done.stdout, done.stderr
    assert "Sharpness of nothing at all, in bits. [default: 0.5]" in " ".join(done.stdout.replace("│", " ").split())
    assert (done.returncode, "--sharpness 0" in done.stderr) == (2, True), done.stderr


def test_yaml_sets_it_and_run_folder_and_report_keep_it(url: str, tmp_path: Path) -> None:
    draw_domains(tmp_path / "data", 5)
    run, file = tmp_path / "run", tmp_path / "run.yaml"
    data = f"data: {{root: {tmp_path / 'data'}, target_domain: sketch}}"
    file.write_text(f"{data}\nstudent: {{name: tiny}}\ntraining: {{sharpness: 0.25}}\n")
    words = ("distill", "--config", str(file), "--out", str(run), "--views", "1", "--yes", *QUICK)
    done = _run(words, (*words, "--sharpness", "0.75"), folder=tmp_path, VL2V_VENDOR_URL=url)
    assert (done.returncode, "--sharpness was 0.25, is 0.75" in " ".join(done.stderr.split())) == (9, True), done.stderr
    assert json.loads((run / "config.json").read_text())["training"]["sharpness"] == 0.25
    assert "| sharpness | 0.25 |" in (run / "report.md").read_text()
