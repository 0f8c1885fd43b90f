"""Views: what the teacher is asked about. An image, seen through parameters that can be replayed for ever.

A view stores integers, never a seed: a seed dies with the library that drew from it, a crop box does not. The teacher
is asked about a view at its own input size, where `vl2v_contract.identity.rgb8_sha` names the pixels; the student is
trained on the same view at the student's.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import RGBImage, generator
from vl2v_client.data.styles import STYLES, check_style, stylise
from vl2v_client.data.view_recipes import STANDARD, Augmentation, ViewRecipe, view_recipe

RENDERER_VERSION = f"1/pillow-{PIL.__version__}"
"""Names the code that turns a view into pixels, Pillow's decoders and filters included: part of every memo of them."""

_UNCHANGED = 1000
_CROP_ATTEMPTS = 10
_MIN_ASPECT, _MAX_ASPECT = 3 / 4, 4 / 3


@dataclass(frozen=True, slots=True)
class View:
    """How to look at an image; the default is the whole image, unchanged.

    Operations run in the order of the attributes. New attributes come with a default, which `to_json` leaves out,
    so that the views of earlier versions keep their names.

    Attributes:
        crop: `(left, top, width, height)` in source pixels; `None` is the whole image.
        flip: Mirrored left to right.
        brightness: Factor in 1/1000.
        contrast: Factor in 1/1000.
        saturation: Factor in 1/1000.
        hue: Shift in 1/1000 of the colour circle, -500 to 500.
        grayscale: Without colour.
        style: Drawn in one of `styles.STYLES`; `None` is as it is.
        style_strength: Strength of the style, as `styles` says.
    """

    crop: tuple[int, int, int, int] | None = None
    flip: bool = False
    brightness: int = _UNCHANGED
    contrast: int = _UNCHANGED
    saturation: int = _UNCHANGED
    hue: int = 0
    grayscale: bool = False
    style: str | None = None
    style_strength: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the canonical view, as JSON values; `{}` for the canonical view."""
        defaults = asdict(View())
        changed = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        if self.crop is not None:
            changed["crop"] = list(self.crop)
        return changed

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "View":
        """Return the view of which `to_json` made `record`.

        Raises:
            DataError: The record has a field or a style that this version does not know.
        """
        unknown = sorted(set(record) - {field.name for field in fields(cls)})
        if unknown:
            raise DataError(f"a stored view has unknown fields ({', '.join(unknown)}): update vl2v")
        values = dict(record)
        if values.get("crop") is not None:
            left, top, width, height = values["crop"]
            values["crop"] = (int(left), int(top), int(width), int(height))
        view = cls(**values)
        if view.style is not None:
            check_style(view.style, view.style_strength)
        return view


def canonical_view() -> View:
    """Return the whole image, squashed to the teacher's square."""
    return View()


def views_for(
    sample_content_name: str, image_size: tuple[int, int], count: int, seed: int, recipe: str = STANDARD
) -> list[View]:
    """Return the views of one image: the canonical one, then drawn ones.

    View `i` is a function of `(seed, sample_content_name, i)` and the recipe: not of the path, the order, or `count`,
    so buying more views later keeps the first ones. Recipes with the same augmentation share their views that are not
    styled.

    Args:
        sample_content_name: The SHA-256 of the file's bytes.
        image_size: `(width, height)` as `load_rgb` gives it.
        count: Number of views; 0 gives none.
        seed: Seed of the run's views.
        recipe: A key of `VIEW_RECIPES`.

    Raises:
        UsageError: There is no such recipe.
    """
    drawn = (drawn_view(sample_content_name, image_size, i, seed, recipe) for i in range(1, count))
    return [canonical_view(), *drawn][:count]


def drawn_view(
    sample_content_name: str, image_size: tuple[int, int], number: int, seed: int, recipe: str = STANDARD
) -> View:
    """Return view `number` of an image, from 1 on, as `views_for` has it among others.

    Raises:
        UsageError: There is no such recipe.
    """
    chosen = view_recipe(recipe)
    if chosen.styles and number % chosen.styled_every == 0:
        return _draw_styled(generator(seed, "styled view", sample_content_name, number), image_size, chosen)
    return _draw_view(generator(seed, "view", sample_content_name, number), image_size, chosen.augmentation)


def render_view(image: Image.Image, view: View, size: int) -> RGBImage:
    """Return the pixels of a view: deterministic, with Pillow's antialiased bicubic filter.

    Args:
        image: RGB, from `load_rgb`.
        view: What to look at.
        size: Width and height of the result: the input size of who looks at it.

    Returns:
        `[size, size, 3]` uint8.

    Raises:
        DataError: The crop reaches outside the image, so the view was made for another one; or this version does
            not know the style.
    """
    picture = image if view.crop is None else image.crop(_corners(view.crop, image.size))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    if view.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels: RGBImage = np.array(_recolour(picture, view), dtype=np.uint8)
    return pixels if view.style is None else stylise(pixels, view.style, view.style_strength)


def _recolour(picture: Image.Image, view: View) -> Image.Image:
    if view.brightness != _UNCHANGED:
        picture = ImageEnhance.Brightness(picture).enhance(view.brightness / _UNCHANGED)
    if view.contrast != _UNCHANGED:
        picture = ImageEnhance.Contrast(picture).enhance(view.contrast / _UNCHANGED)
    if view.saturation != _UNCHANGED:
        picture = ImageEnhance.Color(picture).enhance(view.saturation / _UNCHANGED)
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


def _draw_view(random: np.random.Generator, image_size: tuple[int, int], ranges: Augmentation) -> View:
    def factor(spread: float) -> int:
        return round(1000 * random.uniform(1 - spread, 1 + spread))

    return View(
        crop=_draw_crop(random, image_size, ranges.min_area),
        flip=bool(random.random() < ranges.flip),
        brightness=factor(ranges.colour),
        contrast=factor(ranges.colour),
        saturation=factor(ranges.colour),
        hue=round(1000 * random.uniform(-ranges.hue, ranges.hue)),
        grayscale=bool(random.random() < ranges.grayscale),
    )


def _draw_styled(random: np.random.Generator, image_size: tuple[int, int], recipe: ViewRecipe) -> View:
    """Return a crop, perhaps mirrored, in a style of any strength, which decides the colours."""
    crop = _draw_crop(random, image_size, recipe.augmentation.min_area)
    flip = bool(random.random() < recipe.augmentation.flip)
    style = recipe.styles[int(random.integers(len(recipe.styles)))]
    least, most = STYLES[style].strengths
    strength = int(random.integers(least, most + 1))
    hue = round(1000 * random.uniform(-0.5, 0.5)) if style == "shuffle" else 0
    return View(crop=crop, flip=flip, hue=hue, style=style, style_strength=strength)


def _draw_crop(
    random: np.random.Generator, image_size: tuple[int, int], min_area: float
) -> tuple[int, int, int, int] | None:
    """Return a box of random area and aspect, as `RandomResizedCrop`; the whole image if ten boxes do not fit."""
    image_width, image_height = image_size
    for _ in range(_CROP_ATTEMPTS):
        area = image_width * image_height * random.uniform(min_area, 1.0)
        aspect = math.exp(random.uniform(math.log(_MIN_ASPECT), math.log(_MAX_ASPECT)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image_width and 0 < height <= image_height:
            left = int(random.integers(0, image_width - width + 1))
            top = int(random.integers(0, image_height - height + 1))
            return left, top, width, height
    return None
