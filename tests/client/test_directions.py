"""Text-directed targets: the canonical view's embedding, moved by what a style's name changes in a text."""

from __future__ import annotations

import numpy as np
import pytest

from vl2v_client.data.views import View
from vl2v_client.teacher.classifier import unit_rows
from vl2v_client.teacher.directions import (
    STYLE_REACH,
    STYLE_TRUST,
    StyleDirections,
    direct_styled_views,
    style_directions,
    style_prompts,
)
from vl2v_client.teacher.targets import ImageTargets

STYLES = ("pencil", "ink")
VIEWS = (View(), View(flip=True), View(style="ink", style_strength=20), View(style="pencil", style_strength=3))


def _unit(*shape: int, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=shape))


def _targets(weights: list[list[float]]) -> ImageTargets:
    trust = np.array(weights, dtype=np.float32)
    vectors = _unit(*trust.shape, 5, seed=1) * (trust > 0)[..., None]
    return ImageTargets(vectors.astype(np.float32), trust == 1, trust)


@pytest.fixture
def directions() -> StyleDirections:
    return style_directions(STYLES, _unit(2 * 3, 5, seed=2) * 7, _unit(3, 5, seed=3))


def test_each_style_is_asked_about_once_per_class() -> None:
    assert style_prompts(STYLES, ["dog", "sea_lion"]) == [
        "a pencil sketch of a dog",
        "a pencil sketch of a sea lion",
        "a black and white stencil of a dog",
        "a black and white stencil of a sea lion",
    ]


def test_a_direction_is_the_difference_of_unit_texts(directions: StyleDirections) -> None:
    expected = _unit(6, 5, seed=2).reshape(2, 3, 5) - _unit(3, 5, seed=3)
    assert directions.styles == STYLES
    np.testing.assert_allclose(directions.vectors, expected, atol=1e-6)


def test_a_styled_view_gets_the_canonical_embedding_moved_by_its_style_and_class(directions: StyleDirections) -> None:
    targets = _targets([[1, 1, 0, 0], [1, 1, 0, 0]])
    moved = direct_styled_views(targets, [VIEWS, VIEWS], np.array([2, 0]), directions)
    for row, label in enumerate((2, 0)):
        for column, style in ((2, 1), (3, 0)):
            step = STYLE_REACH * directions.vectors[style, label].astype(np.float64)
            vector = targets.vectors[row, 0] + step
            np.testing.assert_allclose(moved.vectors[row, column], vector / np.linalg.norm(vector), atol=1e-6)
    np.testing.assert_array_equal(moved.vectors[:, :2], targets.vectors[:, :2])
    assert moved.weights.tolist() == [[1, 1, STYLE_TRUST, STYLE_TRUST]] * 2
    assert moved.bought.tolist() == [[True, True, False, False]] * 2
    assert not targets.vectors[:, 2:].any()  # what was handed in is as it was


def test_trust_follows_the_canonical_view_and_nothing_comes_of_nothing(directions: StyleDirections) -> None:
    targets = _targets([[0.5, 1, 0, 0], [0, 1, 0, 0]])
    moved = direct_styled_views(targets, [VIEWS, VIEWS], np.array([0, 1]), directions)
    assert moved.weights.tolist() == [[0.5, 1, 0.5 * STYLE_TRUST, 0.5 * STYLE_TRUST], [0, 1, 0, 0]]
    assert not moved.vectors[1, 2:].any()
    assert (moved.bought == targets.bought).all()


def test_what_was_bought_is_left_alone(directions: StyleDirections) -> None:
    targets = _targets([[1, 1, 1, 0]])
    moved = direct_styled_views(targets, [VIEWS], np.array([0]), directions)
    np.testing.assert_array_equal(moved.vectors[0, 2], targets.vectors[0, 2])
    assert moved.weights.tolist() == [[1, 1, 1, STYLE_TRUST]]
