"""SWAD's valley on traces of validation losses, against steps that the published rule gives.

Every trace is evaluated at steps 0, 10, 20, ...; segment `i > 0` spans the steps `10 i - 9 .. 10 i`. The expected
steps were worked out by hand from the rule with windows 3 and 6 and ratio 0.3, and agree with the authors' program.
"""

import pytest
import torch
from torch import Tensor

from vl2v_client.student.train.averages import LossValley, WeightAverage


def _weights(step: int) -> dict[str, Tensor]:
    return {"w": torch.tensor([float(step)], dtype=torch.float64)}


def _run(losses: list[float], valley: LossValley | None = None, first_step: int = 0) -> LossValley:
    valley = valley or LossValley()
    for step in range(first_step, 10 * (len(losses) - 1) + 1):
        valley.add_step(_weights(step), step)
        if step % 10 == 0:
            valley.add_evaluation(losses[step // 10])
            if valley.is_dead:
                break
    return valley


def _segment_mean(index: int) -> float:
    return 0.0 if index == 0 else 10 * index - 4.5


# (losses, converged, dead, start step, end step, segments in the order in which they enter the average)
TRACES = {
    # Falls to the end: no valley, so the last segment, steps 51 to 60.
    "no valley": ([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], False, False, 51, 60, [6]),
    # Opens at 50, where 2 (step 30) is the least of 2, 2.5, 2.4; threshold 1.3 * 2.3 = 2.99. Of segments 0 .. 3 the
    # last above it is 2; what comes after its successor enters: nothing. At 60 the window is 1 .. 6, whose oldest ends
    # at 10, before 30: nothing enters. At the end 2 .. 6 remain, each with a least loss below the threshold.
    "opens late": ([5, 4, 3, 2, 2.5, 2.4, 2.6], True, False, 20, 60, [2, 3, 4, 5, 6]),
    # Opens at 20, where 1 is the least of three; threshold 1.43. Segments 1 and 2 enter; then the oldest, 0, enters at
    # 30, 40 and 50, until the window of six has filled; 1 and 2 at 60 and 70. At the end 3 .. 7 remain.
    "opens at once": (
        [1, 1.1, 1.2, 1.15, 1.1, 1.05, 1.0, 1.0],
        True,
        False,
        1,
        70,
        [1, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
    ),
    # Opens at 50 around step 30; threshold 1.3 * 1.1 = 1.43. 3 enters at 80, then 4 .. 8 one by one; at 140 the window
    # is 9 .. 14, all above: dead.
    "dies": ([5, 3, 2, 1, 1.1, 1.2, 1.2, 1.1, 1.15, 2, 3, 3, 3, 3, 3, 3, 3], True, True, 21, 80, [3, 4, 5, 6, 7, 8]),
    # Opens at 50 around 0.45 (step 30); threshold 1.3 * 0.5167 = 0.6717. Of segments 0 .. 3 the last above it is 1: 3
    # enters. 3 to 7 enter at 80 to 120, when the window is 7 .. 12 with 0.55 in it. Then 8 .. 12 remain, all above.
    "rises at the end": (
        [2.0, 1.0, 0.5, 0.45, 0.6, 0.5, 0.4, 0.55, 0.7, 0.9, 0.95, 0.9, 0.8],
        True,
        False,
        21,
        70,
        [3, 3, 4, 5, 6, 7],
    ),
}


@pytest.mark.parametrize("name", TRACES)
def test_the_valley_starts_and_ends_where_the_rule_says(name: str) -> None:
    losses, converged, dead, start, end, segments = TRACES[name]
    valley = _run(losses)
    average = valley.final()
    assert (valley.is_converged, valley.is_dead) == (converged, dead)
    assert (average.start_step, average.end_step) == (start, end)
    expected = sum(_segment_mean(index) for index in segments) / len(segments)
    assert average.weights["w"].item() == pytest.approx(expected, abs=1e-9)


def test_asking_for_the_average_changes_nothing() -> None:
    losses = TRACES["opens at once"][0]
    valley = _run(losses[:5])
    valley.final()
    valley.final()
    assert torch.equal(_run(losses, valley, first_step=41).final().weights["w"], _run(losses).final().weights["w"])


@pytest.mark.parametrize("name", TRACES)
def test_a_restored_valley_goes_on_alike(name: str) -> None:
    losses = TRACES[name][0]
    half = _run(losses[:4])
    restored = LossValley()
    restored.restore(half.state())
    for step in (31, 32):
        restored.add_step(_weights(step), step)
    again = LossValley()
    again.restore(restored.state())
    average, expected = _run(losses, again, first_step=33).final(), _run(losses).final()
    assert torch.equal(average.weights["w"], expected.weights["w"])
    assert (average.start_step, average.end_step) == (expected.start_step, expected.end_step)


def test_windows_of_equal_length_open_empty_and_fill() -> None:
    # The valley opens at 20 (1 <= 1.1) with nothing in it; segment 2 enters at 30, 3 at the end.
    average = _run([2, 1, 1.1, 1.05], LossValley(converge=2, tolerance=2)).final()
    assert (average.start_step, average.end_step) == (11, 30)
    assert average.weights["w"].item() == (_segment_mean(2) + _segment_mean(3)) / 2


def test_every_step_counts_in_the_average() -> None:
    average = WeightAverage()
    for step in range(5):
        average.add(_weights(step), start_step=step, end_step=step)
    assert (average.weights["w"].item(), average.start_step, average.end_step) == (2.0, 0, 4)


def test_no_evaluation_yet_is_an_error() -> None:
    with pytest.raises(ValueError, match="no evaluation"):
        LossValley().final()
