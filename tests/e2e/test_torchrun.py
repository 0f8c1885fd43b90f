"""`torchrun` and the whole road: one purchase, one report, the student of a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.client import torchrun_child
from support.vendor.live_parties import Client, Vendor

CHILD = torchrun_child.__file__
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
STEPS = ("--align-steps", "20", "--distill-steps", "30", "--evaluate-every", "10", "--batch-size", "4")


@pytest.mark.slow
def test_two_processes_buy_once_and_make_the_student_of_one(
    shared_vendor: Vendor, new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    alone, together = new_client(shared_vendor), new_client(shared_vendor)
    words = ["distill", "--data", str(shapes), "--target-domain", "sketch", "--views", "2", "--yes", *STEPS]
    words += ["--device", "cpu", "--baseline", "linear-probe", "--loader-workers", "1"]
    single = alone.run(*words, "--out", tmp_path / "single")
    assert single.code == 0, single.err

    done = subprocess.run(
        [*TORCHRUN, CHILD, *words, "--json", "--out", str(tmp_path / "double")],
        env={**together.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # said once
    expected = json.loads((tmp_path / "single" / "report.json").read_text())
    assert json.loads((tmp_path / "double" / "report.json").read_text()) == report
    assert report["purchase"] == expected["purchase"]
    assert together.used_units() == alone.used_units() == 40 * 2 + 4
    assert [row["name"] for row in report["rows"]] == [row["name"] for row in expected["rows"]]
    for row, single_row in zip(report["rows"], expected["rows"], strict=True):
        if row["target"] is not None:
            assert row["target"] == pytest.approx(single_row["target"], abs=1 / 24 + 1e-9)  # one image of 24
    one, two = (load_file(next((tmp_path / run / "student").glob("*.safetensors"))) for run in ("single", "double"))
    assert all(abs(two[name] - one[name]).max() < 1e-2 for name in one)
    assert together.run("audit").code == 0
