"""The named ways to choose an image's views: what they are drawn from, and which of them are styled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vl2v_client.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The ranges that views are drawn from; shares and factors as in torchvision's transforms.

    Attributes:
        min_area: Smallest share of the image that a crop keeps; the largest is 1.
        flip: Probability.
        colour: Brightness, contrast and saturation factors lie in `1 - colour .. 1 + colour`.
        hue: Largest shift, as a share of the colour circle.
        grayscale: Probability.
    """

    min_area: float = 0.7
    flip: float = 0.5
    colour: float = 0.3
    hue: float = 0.05
    grayscale: float = 0.1


@dataclass(frozen=True, slots=True)
class ViewRecipe:
    """How the views of an image are chosen. View 0 is always the canonical one; the others are drawn.

    Attributes:
        augmentation: What views are drawn from.
        styles: What styled views are drawn in, each as likely; their order decides which, so it is for ever.
        styled_every: View `i` is styled if this divides `i`: 2 styles half of the drawn views, beginning with view 2,
            1 styles all.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    styles: tuple[str, ...] = ()
    styled_every: int = 1


STANDARD = "standard"
_SIX_STYLES = ("pencil", "edges", "posterise", "shuffle", "flat", "ink")

VIEW_RECIPES: Mapping[str, ViewRecipe] = MappingProxyType(
    {
        STANDARD: ViewRecipe(),
        "published": ViewRecipe(Augmentation(hue=0.3)),  # this hue shift turns a red apple green
        "styles": ViewRecipe(styles=_SIX_STYLES, styled_every=2),
        "all-styles": ViewRecipe(styles=_SIX_STYLES),
    }
)
"""By the name that the command line knows."""


def view_recipe(name: str) -> ViewRecipe:
    """Return the recipe of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in VIEW_RECIPES:
        raise UsageError(f"no view recipe {name!r}; there are: {', '.join(VIEW_RECIPES)}")
    return VIEW_RECIPES[name]


def styled_views(count: int, recipe: str) -> tuple[int, ...]:
    """Return which of `count` views are styled: the same for every image.

    Raises:
        UsageError: There is no such recipe.
    """
    chosen = view_recipe(recipe)
    return tuple(range(chosen.styled_every, count, chosen.styled_every)) if chosen.styles else ()
