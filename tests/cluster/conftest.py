"""Sweeps of eight runs on every engine, and `torchrun`: minutes, so only with `--cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.fake_vendor import FakeVendor
from support.client.sweep_bench import METHODS, TARGETS, made_by, run_sweep, tiny_sweep

SEEDS = (0, 1)


@pytest.fixture(autouse=True)
def _only_if_asked(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--cluster"):
        pytest.skip("needs --cluster, and minutes: `make test-ray`")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three domains of two classes."""
    return draw_domains(tmp_path_factory.mktemp("cluster") / "data", 5)


@pytest.fixture
def vendor() -> FakeVendor:
    """A vendor that needs no process and no model."""
    return FakeVendor()


@pytest.fixture(scope="session")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a sweep of eight runs makes in one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    run_sweep(tiny_sweep(data, SEEDS), FakeVendor(), folder / "client.db", folder / "sweep")
    made = made_by(folder / "sweep")
    runs = sum(name.endswith("student.safetensors") for name in made)
    assert runs == len(TARGETS) * len(METHODS) * len(SEEDS) == 8
    return made
