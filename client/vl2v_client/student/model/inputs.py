"""From the pixels of a view to what a student's backbone is fed."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vl2v_client.student.model.card import InputFormat


def student_input(
    pixels: NDArray[np.uint8], wanted: InputFormat, device: torch.device, *, channels_last: bool = False
) -> Tensor:
    """Resize, then normalise with the student's own mean and deviation.

    Args:
        pixels: `[B, S, S, 3]` uint8, views.
        wanted: Size and normalisation of the student.
        device: Device of the result; the bytes travel, the floats do not.
        channels_last: Memory format, faster for convolutions.

    Returns:
        `[B, 3, size, size]` float32.
    """
    return normalised(pixel_tensor(pixels).to(device), wanted, channels_last=channels_last)


def pixel_tensor(pixels: NDArray[np.uint8], *, pinned: bool = False) -> Tensor:
    """Return the same bytes as a tensor, copied only if they are read-only or are to be pinned."""
    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return tensor.pin_memory() if pinned else tensor


def normalised(pixels: Tensor, wanted: InputFormat, *, channels_last: bool = False) -> Tensor:
    """Return `student_input` of pixels `[B, S, S, 3]` uint8 that lie where the result shall."""
    images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    if images.shape[-1] != wanted.size:
        mode = wanted.interpolation if wanted.interpolation in ("bilinear", "bicubic") else "bicubic"
        images = functional.interpolate(images, (wanted.size, wanted.size), mode=mode, antialias=True).clamp(0, 1)
    mean = torch.tensor(wanted.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(wanted.std, device=pixels.device).view(1, 3, 1, 1)
    normal = (images - mean) / std
    return normal.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
