"""The proofs of the vendor's service: what breaks, crowds or leaves it harms nobody else.

They measure speed and memory, so they want a machine to themselves: pytest collects them only when they are named
(`pytest tests/vendor_proofs`). Without `--full` they are short, sell the packaged tiny teacher, and hold their speeds
against no goal. `benchmarks/vendor_proofs.py` runs them all at full length, with ViT-B/32. A size can be chosen:
VL2V_PROOF_REQUESTS, VL2V_PROOF_SECONDS, VL2V_PROOF_MINUTES; and the model: VL2V_PROOF_MODEL names an open_clip
architecture, a file with a configuration, or `tiny-teacher`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import photo_jpeg

from support.proofs.naming import is_named
from support.proofs.proof_figures import figures, full, prove, scale
from support.proofs.service_fixtures import model_options, open_vendor, prove_speed, size

__all__ = ["figures", "full", "model_options", "open_vendor", "prove", "prove_speed", "scale", "size"]

_PHOTOS = 48


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the proofs out unless they were named."""
    return None if is_named(Path(__file__).parent, config) else True


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """JPEG files of 500 x 375."""
    return [photo_jpeg(seed) for seed in range(_PHOTOS)]
