"""Differences and ratios of a table's rows, with a bootstrap interval over seeds and test pictures; targets are fixed.

Pairs that share a target or a seed are not independent, so a standard error over all pairs says too little. Here the
seeds are drawn with replacement within each target, and the targets, which nobody drew, count alike. The error of the
test pictures is added where all seeds of a target are tested on the same ones. Where each seed has pictures of its own,
the spread over seeds has their error in it already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Share:
    """How much of the gap between two rows a third one closes, summed over targets.

    Attributes:
        share: Sum of the row's gains over the sum of the gaps; 1 is the whole gap.
        low: Lower end of the 95 % interval; None where a target has fewer than `FEWEST_SEEDS` seeds.
        high: Upper end, likewise.
        seeds: Of each target, how many seeds it has.
    """

    share: float
    low: float | None
    high: float | None
    seeds: Mapping[str, int]


@dataclass(frozen=True)
class _Target:
    """What one target has of some rows: their outcomes, by seed in the same order."""

    name: str
    rows: Sequence[Sequence[Outcome]]

    @property
    def by_seed(self) -> NDArray[np.float64]:
        """`[S, R]` accuracies in points."""
        return np.array([[100 * one.accuracy for one in row] for row in self.rows]).T


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
    targets = _join(outcomes, (high, low))
    if not targets:
        return None
    contrast = np.array([[1.0], [-1.0]])
    middle, errors = _bootstrap(targets, contrast, shared_pictures)
    ends = _ends(middle[0] + errors[:, 0]) if errors is not None else (None, None)
    return Difference(float(middle[0]), *ends, sum(len(target.rows[0]) for target in targets))


def share_of_gap(outcomes: Sequence[Outcome], row: str, low: str, high: str, *, shared_pictures: bool) -> Share | None:
    """Divide what a row gains over `low` by what `high` does, both summed over the targets.

    A draw of seeds and pictures is the same for all three rows.

    Args:
        outcomes: All runs on the targets that count.
        row: Name of the row.
        low: Name of the row at one end of the gap.
        high: Name of the row at its other end.
        shared_pictures: All seeds of a target are tested on the same pictures.

    Returns:
        The share; None if no target and seed has all three rows.

    Raises:
        ValueError: A record without predictions does not say how many test pictures there were.
    """
    contrast = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])  # of row, high and low: gain and gap
    targets = _join(outcomes, (row, high, low))
    if not targets:
        return None
    middle, errors = _bootstrap(targets, contrast, shared_pictures)
    gain, gap = middle
    ends = _ends((gain + errors[:, 0]) / (gap + errors[:, 1])) if errors is not None else (None, None)
    return Share(float(gain / gap), *ends, {target.name: len(target.rows[0]) for target in targets})


def _join(outcomes: Sequence[Outcome], rows: Sequence[str]) -> list[_Target]:
    """The targets and seeds that all these rows have."""
    places = [{(one.target, one.seed): one for one in outcomes if one.row == row} for row in rows]
    whole = sorted(set.intersection(*(set(of_row) for of_row in places)))
    found = []
    for target in dict.fromkeys(target for target, _ in whole):
        mine = [place for place in whole if place[0] == target]
        found.append(_Target(target, [[of_row[place] for place in mine] for of_row in places]))
    return found


def _bootstrap(
    targets: Sequence[_Target], contrast: NDArray[np.float64], shared_pictures: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Means over targets `[C]` of contrasts `[R, C]` of rows, and `[DRAWS, C]` errors of them where seeds suffice."""
    by_seed = [target.by_seed @ contrast for target in targets]  # [S, C] each
    middle = np.mean([values.mean(axis=0) for values in by_seed], axis=0)
    if min(map(len, by_seed)) < FEWEST_SEEDS:
        return middle, None
    rng = np.random.default_rng(_SEED)
    errors = np.zeros((DRAWS, contrast.shape[1]))
    for target, values in zip(targets, by_seed, strict=True):
        errors += _seed_errors(values, rng) / len(targets)
        if shared_pictures:
            errors += _picture_errors(target, contrast, rng) / len(targets)
    return middle, errors


def _ends(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drawn, _PERCENTILES)
    return float(low), float(high)


def _seed_errors(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """`[DRAWS, C]` errors of the means of `[S, C]`, widened: as they are drawn, their variance is (S - 1) / S of it."""
    seeds = len(values)
    drawn = values[rng.choice(seeds, (DRAWS, seeds))].mean(axis=1)
    return np.asarray((drawn - values.mean(axis=0)) * np.sqrt(seeds / (seeds - 1)))


def _picture_errors(target: _Target, contrast: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """`[DRAWS, C]` errors in points that come from the choice of test pictures."""
    if _has_paired_pictures(target):
        by_picture = np.array([_by_picture(row) for row in target.rows]).T @ contrast  # [N, C]
        values, counts = np.unique(by_picture, axis=0, return_counts=True)
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), DRAWS) @ values / counts.sum()
        return np.asarray(100 * (drawn - counts @ values / counts.sum()))
    variances = np.diag([_binomial_variance(row) for row in target.rows])
    spread, axes = np.linalg.eigh(contrast.T @ variances @ contrast)
    factor = axes * np.sqrt(np.maximum(spread, 0))  # [C, C], a root of their covariance
    return np.asarray(100 * rng.standard_normal((DRAWS, contrast.shape[1])) @ factor.T)


def _has_paired_pictures(target: _Target) -> bool:
    """Whether all rows have their predictions for the very same pictures with every seed."""
    every = [one for row in target.rows for one in row]
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
