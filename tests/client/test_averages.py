"""SWAD's rule on recorded traces and beside a second writing of them; EMA and WiSE-FT's line by hand.

The recorded trace is the source validation of an ERM run, evaluated 26 times. What the authors' own program
(khanrc/swad at 252190e) makes of it was written down here: first and last step, and the mean of the steps averaged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from vl2v_client.student.loss.methods import Segments
from vl2v_client.student.train.averages import ExponentialMovingAverage, LossValley, between

LOSSES = [1.258, 0.344, 0.311, 0.339, 0.121, 0.102, 0.136, 0.142, 0.153, 0.178, 0.159, 0.143, 0.173]
LOSSES += [0.291, 0.165, 0.261, 0.725, 0.935, 0.476, 0.091, 0.079, 0.079, 0.095, 0.531, 0.368, 0.137]

# (segments, steps between evaluations, tolerance ratio, what the authors' program says)
RECORDED: list[tuple[Segments, int, float, tuple[int, int, float]]] = [
    ("original", 10, 0.3, (41, 110, 71.75)),
    ("original", 10, 0.1, (41, 60, 48.833333)),
    ("original", 200, 0.3, (801, 2200, 1425.5)),
    ("cumulative", 200, 0.3, (0, 2200, 762.5)),
    ("cumulative", 200, 0.1, (0, 1200, 533.333333)),
]

Window = tuple[int, int]


def _weights(step: int) -> dict[str, Tensor]:
    return {"w": torch.tensor([float(step)], dtype=torch.float64)}


def _valley(losses: Sequence[float], every: int, valley: LossValley) -> tuple[bool, int, int, float]:
    for step in range(every * (len(losses) - 1) + 1):
        valley.add_step(_weights(step), step)
        if step % every == 0:
            valley.add_evaluation(losses[step // every])
            if valley.is_dead:
                break
    average = valley.final()
    return valley.is_dead, average.start_step, average.end_step, average.weights["w"].item()


@pytest.mark.parametrize(("segments", "every", "ratio", "expected"), RECORDED)
def test_the_valley_of_a_recorded_trace_is_the_authors(
    segments: Segments, every: int, ratio: float, expected: tuple[int, int, float]
) -> None:
    dead, start, end, mean = _valley(LOSSES, every, LossValley(tolerance_ratio=ratio, segments=segments))
    assert dead
    assert (start, end, mean) == (*expected[:2], pytest.approx(expected[2], abs=1e-5))


def _members(losses: Sequence[float], converge: int, tolerance: int, ratio: float) -> tuple[list[int], list[int], bool]:
    """LossValley over indices of evaluations: segments that count whole, then ends that count, and whether it died."""
    members: list[int] = []
    opened, threshold, last = -1, 0.0, len(losses) - 1
    for now in range(len(losses)):
        oldest = max(0, now - tolerance + 1)
        if opened < 0:
            recent = losses[now - converge + 1 : now + 1] if now + 1 >= converge else []
            if recent and recent[0] == min(recent):
                opened, threshold = now - converge + 1, float(np.mean(recent)) * (1 + ratio)
                if tolerance > converge:
                    early = range(oldest, now + 1)[: tolerance - converge + 1]
                    above = [index for index in early if losses[index] > threshold]
                    members += [index for index in early if index > (above[-1] + 1 if above else oldest)]
                members += range(opened + 1, opened + 1 + max(0, converge - tolerance))
        elif oldest >= opened:
            if min(losses[oldest : now + 1]) > threshold:
                return members, [], True
            members.append(oldest)
    if opened < 0:
        return [last], [], False
    left = list(range(max(0, last - tolerance + 1) + 1, last + 1))
    while left and min(losses[left[0] :]) > threshold:
        left.clear()
    ends = [index for index in left if min(losses[index:]) <= threshold]
    return members, ends, False


def test_the_valley_of_any_trace_is_that_of_a_second_writing_of_the_rule() -> None:
    rng = random.Random(0)
    dead_or_alive = set()
    for _ in range(300):
        scale, count = rng.random(), rng.randint(4, 40)
        losses = [
            0.05 + abs(2 * (0.8**i if scale < 0.5 else abs(i - 8) / 8) + rng.gauss(0, 0.15)) for i in range(count)
        ]
        converge, tolerance, ratio = rng.choice([2, 3, 4]), rng.choice([2, 3, 6, 8]), rng.choice([0.3, 0.2, 0.05])
        valley = LossValley(converge=converge, tolerance=tolerance, tolerance_ratio=ratio)
        found = _valley(losses, 10, valley)
        members, ends, dead = _members(losses, converge, tolerance, ratio)
        if not members and not ends:
            continue  # nothing has entered an open valley yet
        spans: list[Window] = [(max(0, 10 * index - 9), 10 * index) for index in members]
        values = [(first + end) / 2 if end else 0.0 for first, end in [*spans, *((10 * i - 9, 10 * i) for i in ends)]]
        spans += [(10 * index, 10 * index) for index in ends]
        assert found == (dead, spans[0][0], spans[-1][1], pytest.approx(np.mean(values)))
        dead_or_alive.add((dead, valley.is_converged))
    assert dead_or_alive == {(True, True), (False, True), (False, False)}


def test_the_moving_average_warms_up_and_then_decays() -> None:
    average, expected = ExponentialMovingAverage(0.9), 3.0
    for step, value in enumerate([3.0, 5.0, 4.0, *[1.0] * 100]):
        average.add_step({"w": torch.tensor([value], dtype=torch.float64)})
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.weights["w"].item() == pytest.approx(expected, abs=1e-12)
    assert abs(expected - 1) < 0.01


def test_a_line_between_weights_has_both_ends_to_the_bit() -> None:
    first, last = ({"w": torch.randn(100, generator=torch.Generator().manual_seed(seed))} for seed in (0, 1))
    assert torch.equal(between(first, last, 0.0)["w"], first["w"])
    assert torch.equal(between(first, last, 1.0)["w"], last["w"])
    torch.testing.assert_close(between(first, last, 0.3)["w"], 0.7 * first["w"] + 0.3 * last["w"])
