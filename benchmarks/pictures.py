"""Drawn stand-ins for photos: smooth light, a few objects with edges, and sensor noise, so that JPEGs weigh as much."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

PHOTO_SIZE = (500, 375)
_QUALITY = 90
_NOISE = 6.0


def photo(seed: int, size: tuple[int, int] = PHOTO_SIZE) -> Image.Image:
    """An RGB image of `size`; the same seed draws the same."""
    dice = np.random.default_rng(seed)
    light = Image.fromarray(dice.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    canvas = light.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(60):
        x, y = (int(dice.integers(0, side)) for side in size)
        width, height = (int(dice.integers(size[0] // 50 + 1, size[0] // 5 + 2)) for _ in range(2))
        shape = pen.ellipse if dice.random() < 0.5 else pen.rectangle
        shape((x, y, x + width, y + height), fill=tuple(int(value) for value in dice.integers(0, 256, 3)))
    soft = np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float32)
    noisy = soft + dice.normal(0, _NOISE, soft.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def photo_jpeg(seed: int, size: tuple[int, int] = PHOTO_SIZE) -> bytes:
    """The same as a JPEG file, about 50 kB at 500 x 375."""
    file = io.BytesIO()
    photo(seed, size).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def save_photos(folder: Path, count: int) -> list[bytes]:
    """`count` JPEG files in `folder`, in the order of their names; returns their contents."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [photo_jpeg(seed) for seed in range(count)]
    for seed, content in enumerate(contents):
        (folder / f"{seed:04}.jpg").write_bytes(content)
    return contents


def tensors(seed: int, count: int, side: int) -> NDArray[np.uint8]:
    """`[count, side, side, 3]` uint8 pixels of different photos."""
    return np.stack([np.asarray(photo(seed + number, (side, side))) for number in range(count)])
