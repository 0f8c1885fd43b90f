"""What the proofs against a running vendor share: sizes, goals of speed, a model, and vendors to open.

A size can be chosen by `VL2V_PROOF_<NAME>`, and the model by `VL2V_PROOF_MODEL`: an open_clip architecture, a file with
a configuration, or `tiny-teacher`. The conftest of a folder of proofs imports the fixtures.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from random_models import save_random_model

from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import OpenVendor, ProofVendor, Size, proof_vendor

_TINY, _FULL = "tiny-teacher", "ViT-B-32"


@pytest.fixture(scope="session")
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
