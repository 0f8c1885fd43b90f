"""`torchrun` where the cache is gone once all is bought, as on a host that never had it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.client import torchrun_child
from support.client.fake_vendor import API_KEY, FakeVendor, served

pytestmark = pytest.mark.timeout(1800)

CHILD = torchrun_child.__file__
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
STEPS = ("--align-steps", "5", "--distill-steps", "6", "--evaluate-every", "3", "--batch-size", "4", "--no-probe")


def test_a_run_of_two_processes_goes_on_without_vendor_and_cache(
    vendor: FakeVendor, data: Path, tmp_path: Path
) -> None:
    words = ["distill", "--data", str(data), "--target-domain", "sketch", "--views", "2", "--yes", *STEPS]
    words += ["--device", "cpu", "--loader-workers", "1"]

    def train(run: str, *more: str, url: str, cache: str = "client.db") -> subprocess.CompletedProcess[str]:
        known = {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(tmp_path / cache)}
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        return subprocess.run(
            [*TORCHRUN, str(CHILD), *words, *more, "--out", str(tmp_path / run)],
            env={**os.environ, **known, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    with served(vendor) as url:
        whole = train("whole", url=url)
        assert whole.returncode == 0, whole.stderr
        begun = train("begun", "--quick", url=url, cache="other.db")
        assert begun.returncode == 0, begun.stderr
    billed = vendor.billed_units
    for path in tmp_path.glob("other*"):
        path.unlink()
    done = train("begun", url="http://127.0.0.1:9", cache="other.db")
    assert done.returncode == 0, done.stderr
    assert vendor.billed_units == billed

    def student(run: str) -> bytes:
        return (tmp_path / run / "student" / "student.safetensors").read_bytes()

    def purchase(run: str) -> object:
        return json.loads((tmp_path / run / "report.json").read_text())["purchase"]

    assert (student("begun"), purchase("begun")) == (student("whole"), purchase("whole"))
