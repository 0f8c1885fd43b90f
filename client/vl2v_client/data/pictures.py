"""Images that are in memory, as PIL images or arrays: checked when they are given, and read as files are."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import RGBImage
from vl2v_client.data.images import MAX_PIXELS, to_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import canonical_view

Picture = Image.Image | NDArray[np.uint8]
"""A PIL image of any mode, or an array `[H, W, 3]` uint8, RGB."""


def check_picture(value: object, name: str) -> Picture:
    """Return a picture that can be rendered; a PIL image that was opened from a file is decoded now.

    Args:
        value: What somebody gave.
        name: What to call it in a message.

    Raises:
        DataError: It is no picture, is broken, is empty, or has more than `MAX_PIXELS`.
    """
    if isinstance(value, Image.Image):
        width, height = value.size
        _check_size(width, height, name)
        try:
            value.load()
        except Exception as error:  # Pillow's decoders raise anything
            raise DataError(f"{name} is a broken image ({error}): open it again, or leave it out") from error
        return value
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise DataError(
                f"{name} is an array of {value.dtype} {list(value.shape)}: give uint8 [H, W, 3], RGB from 0 to 255"
            )
        _check_size(value.shape[1], value.shape[0], name)
        return value
    raise DataError(f"{name} is a {type(value).__name__}: give a PIL image, a uint8 array [H, W, 3], or a path")


def render_picture(picture: Picture, size: int, name: str) -> RGBImage:
    """Return the whole picture as `[size, size, 3]`: the pixels that the same image in a file has.

    An animation shows the frame that it is at.

    Raises:
        DataError: It holds pixels of unknown range.
    """
    if isinstance(picture, Image.Image):
        rgb = to_rgb(ImageOps.exif_transpose(picture), name)
    else:
        rgb = Image.fromarray(np.ascontiguousarray(picture))
    return render_view(rgb, canonical_view(), size)


def _check_size(width: int, height: int, name: str) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"{name} has {width}x{height} pixels: give from 1 to {MAX_PIXELS:,} of them")
