"""Sweeps of eight runs on every engine, and `torchrun`: minutes, so only with `--cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client.buying_bench import draw_domains
from support.client.fake_vendor import FakeVendor


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
