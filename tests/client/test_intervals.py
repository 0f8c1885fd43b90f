"""Intervals of accuracies and of differences, against published examples and by their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.evaluation.intervals import accuracy_interval, difference_interval, paired_interval
from vl2v_client.evaluation.mistakes import confident_mistakes, reliability


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_one_accuracy_as_published(right: int, images: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17, 857 (1998), table I, method 3."""
    found = accuracy_interval(right / images, images)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_two_sets_of_images_as_published(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe, Statistics in Medicine 17, 873 (1998), table II, method 10."""
    one, other = (accuracy_interval(right / images, images) for right, images in (first, second))
    found = difference_interval(one, other)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def _pairs(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [one for one, _ in pairs], [other for _, other in pairs]


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292)]
)
def test_the_same_images_as_published(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17, 2635 (1998), method 10, with his correction for continuity."""
    found = paired_interval(*_pairs(*counts))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.word != "undecided"


def test_equal_classifiers_decide_nothing_and_pairs_that_agree_are_told_apart_by_few_images() -> None:
    equal = paired_interval(*_pairs(30, 0, 0, 10))
    assert (equal.value, equal.word) == (0, "undecided")
    first, second = _pairs(300, 30, 5, 65)
    shares = [accuracy_interval(sum(right) / 400, 400) for right in (first, second)]
    paired, unpaired = paired_interval(first, second), difference_interval(*shares)
    assert paired.value == unpaired.value == pytest.approx(25 / 400)
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says() -> None:
    random, missed = np.random.default_rng(0), 0
    for _ in range(1000):
        hard = random.random(60) < 0.3  # images that neither likes
        first, second = (random.random(60) < np.where(hard, 0.2, share) for share in (0.9, 0.7))
        found = paired_interval(list(map(bool, first)), list(map(bool, second)))
        missed += not found.low <= 0.7 * 0.2 <= found.high
    assert missed < 70


def _said(probability: float, right: bool, path: str = "a") -> ImagePrediction:
    return ImagePrediction("ERM", path, "dog", "dog" if right else "cat", probability)


def test_each_range_of_confidence_has_its_images() -> None:
    bins = reliability([_said(0.95, True), _said(1.0, False), _said(0.31, True), _said(0.3, True)])
    assert [(one.low, one.high, one.images, one.accuracy) for one in bins] == [(0.3, 0.4, 2, 1.0), (0.9, 1.0, 2, 0.5)]
    assert bins[1].confidence == pytest.approx(0.975)


def test_the_most_confident_mistakes_come_first_and_their_number_is_bounded() -> None:
    rows = [_said(0.5, False, "c"), _said(0.9, False, "b"), _said(0.9, False, "a"), _said(1.0, True, "d")]
    assert [one.path for one in confident_mistakes(rows, 2)] == ["a", "b"]
    assert len(confident_mistakes(rows, 9)) == 3
