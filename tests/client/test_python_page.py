"""Each Python block of the page on Python runs, one after another, as a reader types them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.config import presets

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_each_block_of_the_page_runs(
    vendor: FakeVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    steps = {"align_steps": 2, "distill_steps": 2, "evaluate_every": 2, "batch_size": 2}
    monkeypatch.setattr(presets, "TINY_TRAINING", {**presets.TINY_TRAINING, **steps})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with served(vendor) as url:
        for name, value in {"VENDOR_URL": url, "API_KEY": API_KEY, "CACHE": str(tmp_path / "client.db")}.items():
            monkeypatch.setenv(f"VL2V_{name}", value)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"docs/python.md, block {number}", "exec"), names)  # the page is our own
    assert len(BLOCKS) >= 6
    assert "queries" in capsys.readouterr().out
