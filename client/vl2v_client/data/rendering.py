"""From a view's parameters to pixels."""

import numpy as np
from PIL import Image, ImageEnhance

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import RGBImage
from vl2v_client.data.styles import STYLES
from vl2v_client.data.views import UNCHANGED, View


def render_view(image: Image.Image, view: View, size: int) -> RGBImage:
    """Return the pixels `[size, size, 3]` of a view: deterministic, with Pillow's antialiased bicubic filter.

    The image is RGB, from `load_rgb`; the size is the input size of who looks at it.

    Raises:
        DataError: The crop reaches outside the image, so the view was made for another one.
    """
    picture = image if view.crop is None else image.crop(_corners(view.crop, image.size))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    if view.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels: RGBImage = np.array(_recolour(picture, view), dtype=np.uint8)
    return pixels if view.style is None else STYLES[view.style].draw(pixels, view.style_strength)


def _recolour(picture: Image.Image, view: View) -> Image.Image:
    if view.brightness != UNCHANGED:
        picture = ImageEnhance.Brightness(picture).enhance(view.brightness / UNCHANGED)
    if view.contrast != UNCHANGED:
        picture = ImageEnhance.Contrast(picture).enhance(view.contrast / UNCHANGED)
    if view.saturation != UNCHANGED:
        picture = ImageEnhance.Color(picture).enhance(view.saturation / UNCHANGED)
    if view.hue:
        shift = round(view.hue * 255 / 1000)
        hue, saturation, value = picture.convert("HSV").split()
        turned = hue.point([(level + shift) % 256 for level in range(256)])
        picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    if view.grayscale:
        picture = picture.convert("L").convert("RGB")
    return picture


def _corners(crop: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, width, height = crop
    right, bottom = left + width, top + height
    if left < 0 or top < 0 or width < 1 or height < 1 or right > size[0] or bottom > size[1]:
        raise DataError(
            f"the crop {crop} reaches outside an image of {size[0]}x{size[1]} pixels: "
            "the image has changed since its views were made; make the plan again"
        )
    return left, top, right, bottom
