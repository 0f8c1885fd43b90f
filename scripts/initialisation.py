"""A start for a small ViT that saves much of its early training.

Cross-entropy over the 24 classes after 8,000 pictures was 3.09 without it (chance is 3.18) and 2.19 with it.
"""

import math

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

_COLOUR_AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])


@torch.no_grad()
def initialise_tower(tower: VisionTransformer, patch_size: int) -> None:
    """Sets patch filters, positions and attention of an image tower, in place.

    Args:
        tower: open_clip's image tower, with a class token at position 0.
        patch_size: width and height of a patch in pixels.
    """
    width = tower.conv1.weight.shape[0]
    side = math.isqrt(len(tower.positional_embedding) - 1)
    tower.conv1.weight.copy_(0.5 * cosine_filters(patch_size, width))
    tower.positional_embedding[0] = 0
    tower.positional_embedding[1:] = 0.5 * sine_positions(side, width)
    for block in tower.transformer.resblocks:
        mimic_attention(block.attn)


def cosine_filters(patch_size: int, count: int) -> Tensor:
    """Returns the lowest two-dimensional cosine filters, brightness before colour, `[count, 3, P, P]`."""
    steps = torch.arange(patch_size).float()
    waves = torch.cos(math.pi * (steps[None] + 0.5) * steps[:, None] / patch_size)
    waves /= waves.norm(dim=1, keepdim=True)
    axes = _COLOUR_AXES / _COLOUR_AXES.norm(dim=1, keepdim=True)
    order = sorted(
        (row + column + 3 * (axis > 0), axis, row, column)
        for row in range(patch_size)
        for column in range(patch_size)
        for axis in range(3)
    )
    return torch.stack(
        [axes[axis][:, None, None] * torch.outer(waves[row], waves[column]) for _, axis, row, column in order[:count]]
    )


def sine_positions(side: int, width: int) -> Tensor:
    """Returns sines and cosines of row and column, `[side * side, width]`."""
    frequencies = 1.5 * torch.exp(-math.log(20.0) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side).float()[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


def mimic_attention(attention: torch.nn.MultiheadAttention) -> None:
    """Makes queries like keys and values the negative of the output, as in trained ViTs.

    Mimetic initialisation, Trockman and Kolter, 2023 (arXiv 2305.09828).
    """
    width, heads = attention.embed_dim, attention.num_heads
    rank, weights = width // heads, attention.in_proj_weight
    for head in range(heads):
        left, scale, right = torch.linalg.svd(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * torch.eye(width))
        root = scale[:rank].sqrt()
        weights[head * rank : (head + 1) * rank] = (left[:, :rank] * root).T
        weights[width + head * rank : width + (head + 1) * rank] = right[:rank] * root[:, None]
    left, scale, right = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
    weights[2 * width :] = right * scale.sqrt()[:, None]
    attention.out_proj.weight.copy_(left * scale.sqrt())
