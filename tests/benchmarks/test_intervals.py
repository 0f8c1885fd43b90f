"""Intervals against cases that can be worked out by hand; the same draws every time."""

from __future__ import annotations

import math

import pytest
from accuracy_runs import Outcome
from intervals import difference


def _outcome(row: str, seed: int, percent: float, *, target: str = "art", images: int = 100, **more: str) -> Outcome:
    return Outcome(row, "", target, seed, percent / 100, None, None, 0, 0, "", test_images=images, **more)


def _seeds(row: str, percents: tuple[float, ...], *, target: str = "art", images: int = 100) -> list[Outcome]:
    return [_outcome(row, seed, percent, target=target, images=images) for seed, percent in enumerate(percents)]


def _predicted(row: str, right: str, *, seeds: int = 3, pictures: str = "same") -> list[Outcome]:
    """The same predictions with each seed."""
    percent, images = 100 * right.count("1") / len(right), len(right)
    return [_outcome(row, seed, percent, images=images, pictures=pictures, right=right) for seed in range(seeds)]


def test_three_seeds_of_one_target() -> None:
    # Of 27 draws one is all 0 and one all 6: their share of 3.7 % puts the 2.5th percentile on them, 3 from the middle,
    # and three values' draws are widened by sqrt(3 / 2).
    outcomes = [*_seeds("low", (50, 50, 50)), *_seeds("high", (50, 53, 56))]
    found = difference(outcomes, "high", "low", shared_pictures=False)
    assert found is not None
    assert (found.mean, found.pairs) == (pytest.approx(3), 3)
    reach = 3 * math.sqrt(3 / 2)
    assert (found.low, found.high) == (pytest.approx(3 - reach), pytest.approx(3 + reach))
    assert difference(outcomes, "high", "low", shared_pictures=False) == found


def test_targets_are_fixed_and_count_alike() -> None:
    outcomes = [*_seeds("low", (50,) * 3), *_seeds("high", (52,) * 3)]
    outcomes += [*_seeds("low", (50,) * 5, target="photo"), *_seeds("high", (60,) * 5, target="photo")]
    found = difference(outcomes, "high", "low", shared_pictures=False)
    assert found is not None
    assert (found.mean, found.low, found.high, found.pairs) == (*[pytest.approx(6)] * 3, 8)


def test_shared_pictures_without_predictions_add_the_binomial_error_of_both_rows_once() -> None:
    outcomes = [*_seeds("low", (50, 50, 50), images=400), *_seeds("high", (60, 60, 60), images=400)]
    found = difference(outcomes, "high", "low", shared_pictures=True)
    assert found is not None
    reach = 1.96 * 100 * math.sqrt((0.5 * 0.5 + 0.6 * 0.4) / 400)  # the three seeds saw the same pictures
    assert (found.low, found.high) == (pytest.approx(10 - reach, abs=0.2), pytest.approx(10 + reach, abs=0.2))


def test_paired_pictures_count_only_where_the_rows_differ() -> None:
    low, high = "1" * 50 + "0" * 50, "1" * 60 + "0" * 40
    found = difference([*_predicted("low", low), *_predicted("high", high)], "high", "low", shared_pictures=True)
    assert found is not None
    reach = 1.96 * 100 * math.sqrt(0.1 * 0.9 / 100)  # ten of a hundred pictures are new
    assert found.mean == pytest.approx(10)
    assert (found.low, found.high) == (pytest.approx(10 - reach, abs=0.9), pytest.approx(10 + reach, abs=0.9))
    alike = difference([*_predicted("low", low), *_predicted("high", low)], "high", "low", shared_pictures=True)
    assert alike is not None
    assert (alike.low, alike.high) == (0, 0)


@pytest.mark.parametrize("other", ["others", "none"])
def test_predictions_for_other_pictures_or_none_are_not_paired(other: str) -> None:
    right = "1" * 50 + "0" * 50
    high = _predicted("high", right, pictures="others") if other == "others" else _seeds("high", (50,) * 3)
    found = difference([*_predicted("low", right), *high], "high", "low", shared_pictures=True)
    assert found is not None
    assert found.high == pytest.approx(1.96 * 100 * math.sqrt(2 * 0.25 / 100), abs=0.5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval_and_no_pair_no_difference(seeds: int) -> None:
    outcomes = [*_seeds("low", (50,) * seeds), *_seeds("high", (60,) * seeds)]
    outcomes += [*_seeds("low", (50,) * 3, target="photo"), *_seeds("high", (60,) * 3, target="photo")]
    found = difference(outcomes, "high", "low", shared_pictures=True)
    assert found is not None
    assert (found.mean, found.low, found.high, found.pairs) == (pytest.approx(10), None, None, 3 + seeds)
    assert difference(_seeds("low", (50, 50)), "high", "low", shared_pictures=True) is None


def test_a_record_that_does_not_say_how_many_pictures_there_were_is_refused() -> None:
    outcomes = [*_seeds("low", (50,) * 3, images=0), *_seeds("high", (60,) * 3)]
    with pytest.raises(ValueError, match="low on art lacks test_images"):
        difference(outcomes, "high", "low", shared_pictures=True)
