"""A teacher's image tower as a student: a backbone and the tower's own output projection."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.local.origin import open_clip

_SMALLEST_TEXT_TOWER = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


@dataclass(frozen=True)
class ImageTower:
    """Two modules that are the tower when one follows the other.

    Attributes:
        backbone: `[B, 3, S, S]` to pooled features `[B, F]`.
        projection: To the teacher's width, `[B, F]` to `[B, D]`.
    """

    backbone: nn.Module
    projection: nn.Linear


def tower_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what builds the image tower of a model configuration again, without its weights."""
    vision = {**config["vision_cfg"]}
    if "timm_model_pretrained" in vision:
        vision["timm_model_pretrained"] = False
    return {"embed_dim": config["embed_dim"], "vision_cfg": vision, "quick_gelu": config.get("quick_gelu", False)}


def copy_tower(visual: nn.Module, name: str) -> ImageTower:
    """Return a copy of a model's image tower in fp32 on the CPU, free to be trained.

    Raises:
        UsageError: The tower does not end in a linear projection.
    """
    own = copy.deepcopy(visual).float().cpu()
    return _split(own.requires_grad_(True), name)


def build_tower(config: Mapping[str, Any]) -> ImageTower:
    """Return a tower with random weights, of what `tower_config` gave.

    Raises:
        UsageError: `open_clip` is not installed.
        DataError: This version of it cannot build such a tower, or the tower does not end in a linear projection.
    """
    library = open_clip()
    try:
        model = library.CLIP(text_cfg=dict(_SMALLEST_TEXT_TOWER), **{**config, "vision_cfg": {**config["vision_cfg"]}})
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise DataError(f"open_clip cannot build the student's image tower ({error}): update vl2v[local]") from error
    try:
        return _split(model.visual, "this student")
    except UsageError as error:
        raise DataError(str(error)) from error


@torch.no_grad()
def _split(visual: nn.Module, name: str) -> ImageTower:
    """Take the projection off; the tower itself becomes the backbone."""
    matrix = getattr(visual, "proj", None)
    if isinstance(matrix, nn.Parameter):  # open_clip's transformer ends in `pooled @ proj`
        features, outputs = matrix.shape
        projection = nn.Linear(features, outputs, bias=False)
        projection.weight.copy_(matrix.T)
        cast(Any, visual).proj = None
        return ImageTower(visual, projection)
    head = getattr(visual, "head", None)
    if isinstance(head, nn.Sequential) and isinstance(getattr(head, "proj", None), nn.Linear):  # a timm trunk
        projection = cast(nn.Linear, head.proj)
        head.proj = nn.Identity()
        return ImageTower(visual, projection)
    raise UsageError(
        f"the image tower of {name} does not end in a linear projection, so it cannot be a student: "
        "use a ViT, or a timm tower with a linear projection"
    )
