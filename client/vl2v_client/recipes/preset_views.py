"""Which views each preset asks about and trains on; apart from all else in a preset, so that no plan loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.recipes.queries import DEFAULT_VIEWS

DEFAULT_PRESET, PAPER_PRESET = PRESETS = ("default", "paper")


@dataclass(frozen=True, slots=True)
class PresetViews:
    """Which views a preset trains on.

    Attributes:
        recipe: a key of `data.views.VIEW_RECIPES`.
        train_views: of each image, if more than are bought; `None` trains on those alone.
    """

    recipe: str
    train_views: int | None


PRESET_VIEWS: Mapping[str, PresetViews] = MappingProxyType(
    {DEFAULT_PRESET: PresetViews("styles", 10), PAPER_PRESET: PresetViews("published", None)}
)
"""The default's were chosen on development styles alone, see `docs/data/shapes.md`."""


def choose_views(
    preset: str,
    views: int | None,
    *,
    recipe: str | None = None,
    train_views: int | None = None,
    online: bool = False,
) -> dict[str, Any]:
    """The fields of `QueryChoice` that say which views are asked about and trained on.

    Args:
        preset: of `PRESETS`.
        views: of each image, to ask about; `None` is `DEFAULT_VIEWS`.
        recipe: `None` is the preset's.
        train_views: `None` is the preset's, if that is more than are asked about.
        online: fresh views at every step, of which none is stored.

    Raises:
        UsageError: no such preset, or a number of views where none is stored.
    """
    check_preset(preset)
    if online and views is not None:
        raise UsageError("--online asks about fresh views at every step: leave --views out")
    views = DEFAULT_VIEWS if views is None else views
    chosen = PRESET_VIEWS[preset]
    if train_views is None and not online and (chosen.train_views or 0) > views:
        train_views = chosen.train_views
    return {
        "views": 1 if online else views,
        "recipe": chosen.recipe if recipe is None else recipe,
        "train_views": train_views,
    }


def check_preset(preset: str) -> None:
    """Refuse what is no preset.

    Raises:
        UsageError: names those that there are.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}; there are: {', '.join(PRESETS)}")
