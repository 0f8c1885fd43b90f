"""Views: what the teacher is asked about. An image, seen through parameters that can be replayed for ever.

A view stores integers, never a seed: a seed dies with the library that drew from it, a crop box does not. The teacher
is asked about a view at its own input size, where `vl2v_contract.identity.rgb8_sha` names the pixels; the student is
trained on the same view at the student's.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import PIL

from vl2v_client.core.values import generator
from vl2v_client.data.styles import STYLES

RENDERER_VERSION = f"1/pillow-{PIL.__version__}"
"""Names the code that turns a view into pixels, Pillow's decoders and filters included: part of every memo of them."""

UNCHANGED = 1000
"""The factor of a colour as it is."""

_MIN_AREA = 0.7  # smallest share of the image that a crop keeps; the largest is 1
_FLIP, _GRAYSCALE = 0.5, 0.1  # probabilities
_COLOUR = 0.3  # brightness, contrast and saturation factors lie in 1 - this .. 1 + this


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
    brightness: int = UNCHANGED
    contrast: int = UNCHANGED
    saturation: int = UNCHANGED
    hue: int = 0
    grayscale: bool = False
    style: str | None = None
    style_strength: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the canonical view, as JSON values; `{}` for the canonical view."""
        changed = {name: value for name, usual in _CANONICAL if (value := getattr(self, name)) != usual}
        if self.crop is not None:
            changed["crop"] = list(self.crop)
        return changed


_CANONICAL = tuple(asdict(View()).items())
"""Name and value of each attribute of the canonical view; kept, as the names of a run's views ask for it."""


@dataclass(frozen=True, slots=True)
class ViewRecipe:
    """How the views of an image are chosen. View 0 is always the canonical one; the others are drawn.

    Attributes:
        hue: Largest shift, as a share of the colour circle.
        styles: What styled views are drawn in, each as likely; their order decides which, so it is for ever.
        styled_every: View `i` is styled if this divides `i`: 2 styles half of the drawn views, beginning with view 2,
            1 styles all.
    """

    hue: float = 0.05
    styles: tuple[str, ...] = ()
    styled_every: int = 1


STANDARD = "standard"
_SIX_STYLES = ("pencil", "edges", "posterise", "shuffle", "flat", "ink")

VIEW_RECIPES: Mapping[str, ViewRecipe] = {
    STANDARD: ViewRecipe(),
    "published": ViewRecipe(hue=0.3),  # this hue shift turns a red apple green
    "styles": ViewRecipe(styles=_SIX_STYLES, styled_every=2),
    "all-styles": ViewRecipe(styles=_SIX_STYLES),
    "drawn": ViewRecipe(styles=(*_SIX_STYLES, "toon", "toon", "toon", "toon")),
}
"""By the name that the command line knows."""


def styled_views(count: int, recipe: str) -> tuple[int, ...]:
    """Return which of `count` views are styled: the same for every image."""
    chosen = VIEW_RECIPES[recipe]
    return tuple(range(chosen.styled_every, count, chosen.styled_every)) if chosen.styles else ()


def canonical_view() -> View:
    """Return the whole image, squashed to the teacher's square."""
    return View()


def views_for(
    sample_content_name: str, image_size: tuple[int, int], count: int, seed: int, recipe: str = STANDARD
) -> list[View]:
    """Return the views of one image: the canonical one, then drawn ones.

    View `i` is a function of `(seed, sample_content_name, i)` and the recipe: not of the path, the order, or `count`,
    so buying more views later keeps the first ones. Recipes with the same hue share their views that are not styled.

    Args:
        sample_content_name: The SHA-256 of the file's bytes.
        image_size: `(width, height)` as `load_rgb` gives it.
        count: Number of views; 0 gives none.
        seed: Seed of the run's views.
        recipe: A key of `VIEW_RECIPES`.
    """
    drawn = (drawn_view(sample_content_name, image_size, i, seed, recipe) for i in range(1, count))
    return [canonical_view(), *drawn][:count]


def drawn_view(
    sample_content_name: str, image_size: tuple[int, int], number: int, seed: int, recipe: str = STANDARD
) -> View:
    """Return view `number` of an image, from 1 on, as `views_for` has it among others."""
    chosen = VIEW_RECIPES[recipe]
    if chosen.styles and number % chosen.styled_every == 0:
        return _draw_styled(generator(seed, "styled view", sample_content_name, number), image_size, chosen.styles)
    rng = generator(seed, "view", sample_content_name, number)
    return View(
        crop=_draw_crop(rng, image_size),
        flip=bool(rng.random() < _FLIP),
        brightness=round(1000 * rng.uniform(1 - _COLOUR, 1 + _COLOUR)),
        contrast=round(1000 * rng.uniform(1 - _COLOUR, 1 + _COLOUR)),
        saturation=round(1000 * rng.uniform(1 - _COLOUR, 1 + _COLOUR)),
        hue=round(1000 * rng.uniform(-chosen.hue, chosen.hue)),
        grayscale=bool(rng.random() < _GRAYSCALE),
    )


def _draw_styled(rng: np.random.Generator, image_size: tuple[int, int], styles: tuple[str, ...]) -> View:
    """Return a crop, perhaps mirrored, in a style of any strength, which decides the colours."""
    crop = _draw_crop(rng, image_size)
    flip = bool(rng.random() < _FLIP)
    style = styles[int(rng.integers(len(styles)))]
    least, most = STYLES[style].strengths
    strength = int(rng.integers(least, most + 1))
    hue = round(1000 * rng.uniform(-0.5, 0.5)) if style == "shuffle" else 0
    view = View(crop=crop, flip=flip, hue=hue, style=style, style_strength=strength)
    return _recolour_toon(rng, view) if style == "toon" else view


def _recolour_toon(rng: np.random.Generator, view: View) -> View:
    """Return the view in stronger colours; two in five in other ones, one in five in none."""
    kind, saturation, hue = (
        int(rng.integers(5)),
        round(1000 * rng.uniform(1, 2.2)),
        round(1000 * rng.uniform(-0.5, 0.5)),
    )
    return replace(view, saturation=saturation, hue=hue if kind < 2 else 0, grayscale=kind == 4)


def _draw_crop(rng: np.random.Generator, image_size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return a box of random area and aspect, as `RandomResizedCrop`; the whole image if ten boxes do not fit."""
    image_width, image_height = image_size
    for _ in range(10):
        area = image_width * image_height * rng.uniform(_MIN_AREA, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image_width and 0 < height <= image_height:
            left = int(rng.integers(0, image_width - width + 1))
            top = int(rng.integers(0, image_height - height + 1))
            return left, top, width, height
    return None
