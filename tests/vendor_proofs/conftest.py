"""The proofs of the vendor's service: what breaks, crowds or leaves it harms nobody else.

They measure speed and memory, so they want a machine to themselves: pytest collects them only when they are named
(`pytest tests/vendor_proofs`). Without `--full` they are short, sell the packaged tiny teacher, and hold their speeds
against no goal. `benchmarks/vendor_proofs.py` runs them all at full length, with ViT-B/32. A size can be chosen:
VL2V_PROOF_REQUESTS, VL2V_PROOF_SECONDS, VL2V_PROOF_MINUTES; and the model: VL2V_PROOF_MODEL names an open_clip
architecture, a file with a configuration, or `tiny-teacher`.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.proofs.proof_figures import Prove, figures, full, prove, scale

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from pictures import photo_jpeg
from random_models import save_random_model

from support.proofs.proof_vendor import OpenVendor, ProofVendor, Size, proof_vendor

__all__ = ["figures", "full", "prove", "scale"]

_TINY, _FULL = "tiny-teacher", "ViT-B-32"
_PHOTOS = 48


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the proofs out unless they were named."""
    here = Path(__file__).parent
    named = ((config.invocation_params.dir / word.split("::")[0]).resolve() for word in config.args)
    return None if any(path == here or here in path.parents for path in named) else True


@pytest.fixture
def size(full: bool) -> Size:
    def choose(name: str, short: float, at_length: float) -> float:
        return float(os.environ.get(f"VL2V_PROOF_{name}", at_length if full else short))

    return choose


@pytest.fixture
def prove_speed(full: bool, prove: Prove) -> Prove:
    """As `prove`, but a short form only tells."""

    def note(name: str, value: float | int | str, *, goal: str, met: bool) -> None:
        if full:
            prove(name, value, goal=goal, met=met)
        else:
            sys.stderr.write(f"\n    told  {name}: {value} (at full length {goal})\n")

    return note


@pytest.fixture(scope="session")
def model_options(full: bool, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The model of these proofs, as options of `serve`."""
    chosen = os.environ.get("VL2V_PROOF_MODEL", _FULL if full else _TINY)
    if chosen == _TINY:
        return []
    model = save_random_model(tmp_path_factory.mktemp("model"), chosen)
    return ["--model-config", str(model.config_file), "--pretrained", str(model.checkpoint_file), "--device", "cpu"]


@pytest.fixture
def open_vendor(tmp_path: Path, model_options: list[str]) -> OpenVendor:
    def start(**settings: object) -> AbstractContextManager[ProofVendor]:
        named = {name: str(value) for name, value in settings.items()}
        return proof_vendor(tmp_path / "vendor", model_options, named)

    return start


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """JPEG files of 500 x 375."""
    return [photo_jpeg(seed) for seed in range(_PHOTOS)]
