"""Targets: joined by key, never by place; what is missing is named or masked."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError
from vl2v_client.teacher.targets import (
    ImageTargets,
    borrow_from_same_image,
    join_image_targets,
)

VECTORS = {
    "a" * 64: np.array([2.0, 0.0], dtype=np.float16),
    "b" * 64: np.array([0.0, 4.0], dtype=np.float16),
}
A, B, C = "a" * 64, "b" * 64, "c" * 64


def _fetch(keys: Sequence[str]) -> dict[str, NDArray[np.floating]]:
    return {key: VECTORS[key] for key in keys if key in VECTORS}


def test_each_view_gets_the_vector_of_its_key_as_a_unit_vector() -> None:
    joined = join_image_targets([[B, A], [A, A]], _fetch, dimension=2, names=["x.png", "y.png"])
    assert joined.vectors.tolist() == [[[0, 1], [1, 0]], [[1, 0], [1, 0]]]
    assert joined.bought.all()


def test_a_missing_view_is_named_or_masked() -> None:
    with pytest.raises(CacheError, match=r"view 1 of y\.png \(key cccccccccccc\): buy the plan first"):
        join_image_targets([[A, A], [A, C]], _fetch, dimension=2, names=["x.png", "y.png"])
    joined = join_image_targets([[A, C]], _fetch, dimension=2, names=["x.png"], allow_missing=True)
    assert joined.weights.tolist() == [[1, 0]]
    assert joined.bought.tolist() == [[True, False]]
    assert joined.vectors[0, 1].tolist() == [0, 0]


def test_few_vectors_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(keys: Sequence[str]) -> dict[str, NDArray[np.floating]]:
        asked.append(list(keys))
        return _fetch(keys)

    keys, names = [[A, B], [B, C], [B, B], [C, A], [A, A]], [f"{row}.png" for row in range(5)]
    whole = join_image_targets(keys, _fetch, dimension=2, names=names, allow_missing=True)
    monkeypatch.setattr("vl2v_client.teacher.targets._ROWS_AT_ONCE", 2)
    joined = join_image_targets(keys, fetch, dimension=2, names=names, allow_missing=True)
    assert asked == [[A, B, B, C], [B, B, C, A], [A, A]]
    np.testing.assert_array_equal(joined.vectors, whole.vectors)
    assert whole.vectors[:, 0].tolist() == [[1, 0], [0, 1], [0, 1], [0, 0], [1, 0]]


def test_a_vector_of_another_width_is_refused() -> None:
    with pytest.raises(CacheError, match=r"shape \(2,\), not \(3,\)"):
        join_image_targets([[A]], _fetch, dimension=3, names=["x.png"])


def test_no_views_at_all_are_fine() -> None:
    joined = join_image_targets([[], []], _fetch, dimension=2, names=["x.png", "y.png"])
    assert joined.vectors.shape == (2, 0, 2)


def test_a_view_without_a_target_borrows_its_images_own() -> None:
    vectors = np.array([[[1, 0], [0, 1], [0, 0]], [[0.6, 0.8], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]], np.float32)
    weights = np.array([[1, 0.5, 0], [0.4, 0, 0], [0, 0, 0]], dtype=np.float32)
    targets = borrow_from_same_image(ImageTargets(vectors, weights == 1, weights))
    lent = np.array([2, 1]) / np.sqrt(5)  # a bought view counts twice as much as one trusted half
    np.testing.assert_allclose(targets.vectors[0, 2], lent, atol=1e-7)
    np.testing.assert_allclose(targets.vectors[1, 1:], [[0.6, 0.8]] * 2, atol=1e-7)
    np.testing.assert_allclose(targets.weights, [[1, 0.5, 0.75], [0.4, 0.4, 0.4], [0, 0, 0]], atol=1e-7)
    assert not targets.vectors[2].any()  # nothing was bought: it trains on its text
    np.testing.assert_array_equal(targets.vectors[:2, 0], vectors[:2, 0])
    np.testing.assert_array_equal(targets.bought, weights == 1)  # borrowed is not bought
