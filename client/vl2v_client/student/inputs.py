"""From the pixels of a view to what a student's backbone is fed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vl2v_client.student.spec import InputFormat


def student_input(
    pixels: NDArray[np.uint8],
    wanted: InputFormat,
    device: torch.device,
    *,
    channels_last: bool = False,
) -> Tensor:
    """Resizes, then normalises with the student's own mean and deviation.

    Args:
        pixels: `[B, S, S, 3]` uint8, a view at the teacher's input size.
        wanted: size and normalisation of the student.
        device: where the result lies; the bytes travel, the floats do not.
        channels_last: memory format, faster for convolutions.

    Returns:
        `[B, 3, size, size]` float32.
    """
    batch = torch.from_numpy(np.array(pixels)).to(device)  # a copy: a render file is read-only
    images = batch.permute(0, 3, 1, 2).to(torch.float32) / 255
    if images.shape[-1] != wanted.size:
        mode = wanted.interpolation if wanted.interpolation in ("bilinear", "bicubic") else "bicubic"
        images = functional.interpolate(images, (wanted.size, wanted.size), mode=mode, antialias=True).clamp(0, 1)
    mean = torch.tensor(wanted.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(wanted.std, device=device).view(1, 3, 1, 1)
    normalised = (images - mean) / std
    return normalised.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
