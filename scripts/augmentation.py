"""Random changes to batches of pictures, on tensors, float32 `[B, 3, S, S]` in 0..1."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def to_batch(pixels: Tensor) -> Tensor:
    """Turns uint8 `[B, S, S, 3]` into float32 `[B, 3, S, S]` in 0..1."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def move(batch: Tensor, generator: torch.Generator, *, scale: float = 0.15, shift: float = 0.1) -> Tensor:
    """Mirrors half of the pictures, zooms each by up to `scale` and moves it by up to `shift` of half its width."""
    count = len(batch)
    zoom = 1 + scale * (2 * torch.rand(count, generator=generator) - 1)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = zoom * mirror
    transform[:, 1, 1] = zoom
    transform[:, :, 2] = shift * (2 * torch.rand(count, 2, generator=generator) - 1)
    grid = functional.affine_grid(transform, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def jitter(batch: Tensor, generator: torch.Generator, *, strength: float = 0.2) -> Tensor:
    """Multiplies and offsets each channel a little: lighting and white balance."""
    gain = 1 + strength * (2 * torch.rand(len(batch), 3, 1, 1, generator=generator) - 1)
    offset = 0.4 * strength * (2 * torch.rand(len(batch), 1, 1, 1, generator=generator) - 1)
    return (batch * gain + offset).clamp(0, 1)


def fade(batch: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Takes the colour out of some of the pictures."""
    faded = torch.rand(len(batch), 1, 1, 1, generator=generator) < probability
    return torch.where(faded, batch.mean(dim=1, keepdim=True), batch)


def stylise(batch: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gives a fraction of the pictures one of eight simple styles.

    Returns:
        The pictures, and which of them were changed, bool `[B]`.
    """
    chosen = torch.randint(len(_STYLISATIONS), (len(batch),), generator=generator)
    changed = torch.rand(len(batch), generator=generator) < fraction
    batch = batch.clone()
    for number, change in enumerate(_STYLISATIONS):
        rows = changed & (chosen == number)
        if rows.any():
            batch[rows] = change(batch[rows], generator)
    return batch, changed


def _grey(batch: Tensor, _: torch.Generator) -> Tensor:
    return batch.mean(dim=1, keepdim=True).expand_as(batch)


def _invert(batch: Tensor, _: torch.Generator) -> Tensor:
    return 1 - batch


def _posterise(batch: Tensor, _: torch.Generator) -> Tensor:
    return (batch * 3).round() / 3


def _shuffle_channels(batch: Tensor, generator: torch.Generator) -> Tensor:
    return batch[:, torch.randperm(3, generator=generator)]


def _blur(batch: Tensor, _: torch.Generator) -> Tensor:
    return functional.avg_pool2d(batch, 3, stride=1, padding=1, count_include_pad=False)


def _trace_edges(batch: Tensor, generator: torch.Generator) -> Tensor:
    grey = functional.pad(batch.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    edges = (2.5 * (across.square() + down.square()).sqrt()).clamp(0, 1).expand_as(batch)
    return edges if torch.rand((), generator=generator) < 0.5 else 1 - edges


def _add_noise(batch: Tensor, generator: torch.Generator) -> Tensor:
    return (batch + 0.1 * torch.randn(batch.shape, generator=generator)).clamp(0, 1)


def _pixelate(batch: Tensor, _: torch.Generator) -> Tensor:
    return functional.interpolate(functional.avg_pool2d(batch, 2), scale_factor=2.0)


_STYLISATIONS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    _grey,
    _invert,
    _posterise,
    _shuffle_channels,
    _blur,
    _trace_edges,
    _add_noise,
    _pixelate,
)
