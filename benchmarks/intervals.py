"""Differences between two rows of a table, with a bootstrap interval over seeds and test pictures; targets are fixed.

Pairs that share a target or a seed are not independent, so a standard error over all pairs says too little. Here the
seeds are drawn with replacement within each target, and the targets, which nobody drew, count alike. The error of the
test pictures is added where all seeds of a target are tested on the same ones. Where each seed has pictures of its own,
the spread over seeds has their error in it already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from accuracy_runs import Outcome
from numpy.typing import NDArray

DRAWS = 10_000
FEWEST_SEEDS = 3
"""Of each target: the draws of two values have three outcomes, which are no distribution."""
_SEED = 0
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Difference:
    """One row less another, in points of accuracy.

    Attributes:
        mean: Mean over targets of the mean over seeds.
        low: Lower end of the 95 % interval; None where a target has fewer than `FEWEST_SEEDS` seeds.
        high: Upper end, likewise.
        pairs: How many pairs of target and seed there are.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class _Target:
    """The pairs of one target: the higher and the lower row's outcomes, by seed in the same order."""

    high: Sequence[Outcome]
    low: Sequence[Outcome]

    @property
    def by_seed(self) -> NDArray[np.float64]:
        """`[S]` differences in points."""
        pairs = zip(self.high, self.low, strict=True)
        return np.array([100 * (high.accuracy - low.accuracy) for high, low in pairs])


def difference(outcomes: Sequence[Outcome], high: str, low: str, *, shared_pictures: bool) -> Difference | None:
    """Compare the pairs of target and seed that both rows have.

    Args:
        outcomes: All runs.
        high: Name of the row.
        low: Name of the row that is subtracted.
        shared_pictures: All seeds of a target are tested on the same pictures.

    Returns:
        The difference; None if there is no pair.

    Raises:
        ValueError: A record without predictions does not say how many test pictures there were.
    """
    targets = _pair(outcomes, high, low)
    if not targets:
        return None
    by_seed = [target.by_seed for target in targets]
    middle, pairs = mean(float(values.mean()) for values in by_seed), sum(map(len, by_seed))
    if min(map(len, by_seed)) < FEWEST_SEEDS:
        return Difference(middle, None, None, pairs)
    rng = np.random.default_rng(_SEED)
    errors = np.zeros(DRAWS)  # [DRAWS], of the mean over targets
    for target, values in zip(targets, by_seed, strict=True):
        errors += _seed_errors(values, rng) / len(targets)
        if shared_pictures:
            errors += _picture_errors(target, rng) / len(targets)
    ends = np.percentile(middle + errors, _PERCENTILES)
    return Difference(middle, float(ends[0]), float(ends[1]), pairs)


def _pair(outcomes: Sequence[Outcome], high: str, low: str) -> list[_Target]:
    places = {row: {(one.target, one.seed): one for one in outcomes if one.row == row} for row in (high, low)}
    both = sorted(places[high].keys() & places[low].keys())
    found = []
    for target in dict.fromkeys(target for target, _ in both):
        mine = [place for place in both if place[0] == target]
        found.append(_Target([places[high][place] for place in mine], [places[low][place] for place in mine]))
    return found


def _seed_errors(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """`[DRAWS]` errors of the mean of `[S]` values, widened: as they are drawn, their variance is (S - 1) / S of it."""
    drawn = rng.choice(values, (DRAWS, len(values))).mean(axis=1)
    return (drawn - values.mean()) * np.sqrt(len(values) / (len(values) - 1))


def _picture_errors(target: _Target, rng: np.random.Generator) -> NDArray[np.float64]:
    """`[DRAWS]` errors in points that come from the choice of test pictures."""
    if _has_paired_pictures(target):
        values, counts = np.unique(_by_picture(target.high) - _by_picture(target.low), return_counts=True)
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), DRAWS) @ values / counts.sum()  # [DRAWS]
        return np.asarray(100 * (drawn - values @ counts / counts.sum()))
    variance = _binomial_variance(target.high) + _binomial_variance(target.low)
    return rng.normal(0, 100 * np.sqrt(variance), DRAWS)


def _has_paired_pictures(target: _Target) -> bool:
    """Whether both rows have their predictions for the very same pictures with every seed."""
    every = [*target.high, *target.low]
    return all(one.right for one in every) and len({(one.pictures, len(one.right)) for one in every}) == 1


def _by_picture(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """`[N]` shares of the seeds that were right about each picture."""
    return np.array([[digit == "1" for digit in one.right] for one in outcomes]).mean(axis=0)


def _binomial_variance(outcomes: Sequence[Outcome]) -> float:
    """Of the mean accuracy over seeds, 0 to 1, which all saw the same pictures: more seeds do not lower it."""
    if not all(one.test_images for one in outcomes):
        raise ValueError(f"the record of {outcomes[0].row} on {outcomes[0].target} lacks test_images: run it again")
    share = mean(one.accuracy for one in outcomes)
    return share * (1 - share) / outcomes[0].test_images
