"""Intervals against cases that can be worked out by hand; the same draws every time."""

from __future__ import annotations

import math

import pytest
from accuracy_runs import Outcome
from intervals import difference, share_of_gap


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


def _share(outcomes: list[Outcome], *, shared_pictures: bool) -> tuple[float, float, float]:
    found = share_of_gap(outcomes, "mine", "low", "high", shared_pictures=shared_pictures)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.share, found.low, found.high


def test_a_draw_of_seeds_is_the_same_for_gain_and_gap() -> None:
    # The row closes half of the gap with each seed, so every draw of seeds has half, though gain and gap both vary.
    outcomes = [*_seeds("low", (40, 50, 60)), *_seeds("high", (80, 80, 80)), *_seeds("mine", (60, 65, 70))]
    assert _share(outcomes, shared_pictures=False) == (pytest.approx(0.5),) * 3
    outcomes = [*_seeds("low", (50,) * 3), *_seeds("high", (80,) * 3), *_seeds("mine", (59, 65, 71))]
    reach = 6 * math.sqrt(3 / 2) / 30  # the ends of 27 draws, as above
    assert _share(outcomes, shared_pictures=False) == (0.5, pytest.approx(0.5 - reach), pytest.approx(0.5 + reach))


def test_gains_and_gaps_are_summed_over_targets_before_they_are_divided() -> None:
    outcomes = [*_seeds("low", (50,) * 3), *_seeds("high", (60,) * 3), *_seeds("mine", (60,) * 3)]
    for row, percent in (("low", 50), ("high", 80), ("mine", 50)):
        outcomes += _seeds(row, (percent,) * 3, target="photo")
    assert _share(outcomes, shared_pictures=False) == (pytest.approx(0.25),) * 3


def test_a_draw_of_pictures_is_the_same_for_the_three_rows() -> None:
    low, high = "1" * 50 + "0" * 50, "1" * 90 + "0" * 10
    outcomes = [*_predicted("low", low), *_predicted("high", high)]
    assert _share([*outcomes, *_predicted("mine", high)], shared_pictures=True) == (1, 1, 1)
    half = "1" * 70 + "0" * 30
    share, bottom, top = _share([*outcomes, *_predicted("mine", half)], shared_pictures=True)
    reach = 1.96 * math.sqrt(0.5 * 0.5 / 40)  # which of the 40 pictures of the gap are among the 20 of the gain
    assert (share, bottom, top) == (0.5, pytest.approx(0.5 - reach, abs=0.02), pytest.approx(0.5 + reach, abs=0.02))


def test_without_predictions_the_pictures_of_three_rows_are_independent() -> None:
    outcomes = [*_seeds("low", (50,) * 3), *_seeds("high", (90,) * 3), *_seeds("mine", (70,) * 3)]
    share, bottom, top = _share(outcomes, shared_pictures=True)
    low, high, mine = (0.5 * 0.5 / 100, 0.9 * 0.1 / 100, 0.7 * 0.3 / 100)
    reach = 1.96 * math.sqrt(mine + 0.25 * high + 0.25 * low) / 0.4  # of (mine - low) / (high - low), to first order
    assert (share, bottom, top) == (0.5, pytest.approx(0.5 - reach, abs=0.06), pytest.approx(0.5 + reach, abs=0.06))


def test_seeds_count_where_all_three_rows_have_them() -> None:
    outcomes = [*_seeds("low", (50, 50)), *_seeds("high", (80, 80)), *_seeds("mine", (65, 65, 10))]
    found = share_of_gap(outcomes, "mine", "low", "high", shared_pictures=False)
    assert found is not None
    assert (found.share, found.low, found.high, found.seeds) == (0.5, None, None, {"art": 2})
    assert share_of_gap(outcomes[:4], "mine", "low", "high", shared_pictures=False) is None
