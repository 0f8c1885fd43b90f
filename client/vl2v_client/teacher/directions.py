"""Text-directed targets: what the teacher would say of a styled view, from its image's embedding and texts alone.

A style is bought as text, once per class, and its direction `txt_s,y - txt_y` moves the embedding of the canonical
view: `normalise(img + STYLE_REACH * (txt_s,y - txt_y))`. An approximation, since images and texts of one thing lie
apart in the teacher's space; it is trusted less than what was bought, and every styled view that it serves is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.data.views import View
from vl2v_client.teacher.classifier import unit_rows
from vl2v_client.teacher.prompts import PromptTemplateSet
from vl2v_client.teacher.targets import ImageTargets

STYLE_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "pencil": "a pencil sketch of a {class}",
        "edges": "white outlines of a {class} on black",
        "posterise": "a posterised picture of a {class}",
        "shuffle": "a photo of a {class} in false colours",
        "flat": "a flat painting of a {class} without texture",
        "ink": "a black and white stencil of a {class}",
    }
)
"""How each of `data.styles.STYLES` is said."""

STYLE_REACH = 0.25
"""How far a direction moves an image's embedding, as a share of how far it moves the text's.

With the tiny teacher on the development styles of `shapes`, this far costs nothing and gains nothing over the canonical
view's own embedding; 0.5 and 1 are worse (`benchmarks/style_views.py`)."""

STYLE_TRUST = 0.5
"""The weight of a text-directed target beside that of the embedding that it was made of; chosen, not fitted."""


@dataclass(frozen=True)
class StyleDirections:
    """Where each style lies from the class prompts.

    Attributes:
        styles: their names, `S`.
        vectors: `[S, C, D]` float32, `txt_s,y - txt_y` of unit text embeddings.
    """

    styles: tuple[str, ...]
    vectors: NDArray[np.float32]


def style_prompts(styles: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """The `S * C` texts to buy, a style's classes side by side."""
    templates = PromptTemplateSet(tuple(STYLE_TEMPLATES[style] for style in styles)).prompts(class_names)
    return [of_class[row] for row in range(len(styles)) for of_class in templates]


def style_directions(
    styles: Sequence[str], text_embeddings: NDArray[np.float16] | NDArray[np.float32], classifier: EmbeddingMatrix
) -> StyleDirections:
    """Directions from the bought texts.

    Args:
        styles: `S` names.
        text_embeddings: `[S * C, D]` of `style_prompts`, in any scale.
        classifier: `[C, D]` unit rows, `txt_y`.
    """
    texts = unit_rows(text_embeddings).reshape(len(styles), *classifier.shape)
    return StyleDirections(tuple(styles), texts - classifier)


def direct_styled_views(
    targets: ImageTargets, views: Sequence[Sequence[View]], labels: NDArray[np.int64], directions: StyleDirections
) -> ImageTargets:
    """Gives every styled view without a target the one that its image's canonical view and the texts make.

    Args:
        targets: of `N` samples and `K` views, of which view 0 is canonical; `[N, K, D]`.
        views: the same `K` views of the same samples.
        labels: `[N]`.
        directions: of every style among the views.

    Returns:
        The targets with those views filled, not bought, at `STYLE_TRUST` of the canonical view's weight: a sample
        whose canonical view has no target gets none.
    """
    number = {style: row for row, style in enumerate(directions.styles)}
    rows, columns, styles = [], [], []
    for row, of_one in enumerate(views):
        for column, view in enumerate(of_one):
            if view.style is not None and targets.weights[row, column] == 0 < targets.weights[row, 0]:
                rows.append(row)
                columns.append(column)
                styles.append(number[view.style])
    vectors, weights = targets.vectors.copy(), targets.weights.copy()
    if rows:
        steps = directions.vectors[styles, labels[rows]]
        vectors[rows, columns] = unit_rows(targets.vectors[rows, 0] + STYLE_REACH * steps)
        weights[rows, columns] = STYLE_TRUST * targets.weights[rows, 0]
    return ImageTargets(vectors, targets.bought, weights)
