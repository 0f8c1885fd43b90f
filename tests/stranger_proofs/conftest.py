"""The proofs that strangers do no harm: with nothing but the port, with a key of budget 0, or from the other side.

Each attack is a program of its own against a server in a process of its own, while another customer buys. The proofs
measure speed and memory, so they want a machine to themselves, and pytest collects them only when they are named
(`pytest tests/stranger_proofs`). Without `--full` they are short and sell the packaged tiny teacher; delays are told
and not held against their goals. `benchmarks/stranger_proofs.py` runs them all at full length, with ViT-B/32.
VL2V_PROOF_SECONDS is the length of each attack, VL2V_PROOF_CONNECTIONS how many connections it may hold, and
VL2V_PROOF_MODEL the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import photo_jpeg

from support.proofs.naming import is_named
from support.proofs.proof_figures import figures, full, prove, scale
from support.proofs.proof_vendor import Size
from support.proofs.service_fixtures import model_options, prove_speed, size
from support.proofs.siege import Siege, besieged_vendor

__all__ = ["figures", "full", "model_options", "prove", "prove_speed", "scale", "size"]

_PHOTOS = 16


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the proofs out unless they were named."""
    return None if is_named(Path(__file__).parent, config) else True


@pytest.fixture(scope="module")
def siege(model_options: list[str], size: Size, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """One vendor for all attacks of a file, one after the other."""
    photos = [photo_jpeg(seed) for seed in range(_PHOTOS)]
    home = tmp_path_factory.mktemp("besieged")
    with besieged_vendor(home, model_options, photos, warm_seconds=size("WARM_SECONDS", 3, 30)) as siege:
        yield siege
