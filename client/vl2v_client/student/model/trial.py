"""One image through a backbone on the meta device: shapes and operations, without memory or weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

MAX_OPERATIONS = 10**13
"""For one image, forward. The largest CLIP tower that open_clip can make a student of takes 2.9e12, ViT-L/14 4e11."""


def try_backbone(backbone: nn.Module, size: int) -> tuple[int, ...]:
    """Feed a backbone one image, `[1, 3, size, size]`.

    Args:
        backbone: Backbone with its parameters on the meta device.
        size: Size of the image in pixels.

    Returns:
        The shape of its features.

    Raises:
        ValueError: One image takes more than `MAX_OPERATIONS`.
        Exception: The backbone cannot take such an image; whatever its library raises.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        shape = tuple(backbone.eval()(torch.empty(1, 3, size, size)).shape)
    operations = counter.get_total_flops()
    if operations > MAX_OPERATIONS:
        raise ValueError(f"one image takes {operations:.1e} operations, more than {MAX_OPERATIONS:.0e}")
    return shape
