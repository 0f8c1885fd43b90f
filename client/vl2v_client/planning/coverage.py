"""Selectors that cover a cloud of features: each takes one stratum and names its rows in the order of buying.

Features are scaled to length one, so a squared distance is `2 - 2 cos`. All are greedy, deterministic, and hold `O(n)`
numbers beside the features, or a block of `_BLOCK_ROWS x n`; a tie falls to the lower row. Times are for `b` picks
among `n` rows of width `F`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""`[n, F]`, rows of length one."""

Selector = Callable[[Features, int, np.random.Generator], list[int]]
"""Rows of a stratum in the order of buying: `count` of them, at most `n`."""

NEIGHBOURS = 20
"""TypiClust's."""

MOST_CLUSTERS = 500
"""TypiClust's."""

_BLOCK_ROWS = 1024
_GAIN_DECIMALS = 4  # beyond that two equal gains differ by their rounding, and with it by the machine
_LLOYD_ITERATIONS = 20


def unit_features(features: NDArray[np.floating]) -> Features:
    """`[N, F]` scaled to rows of length one; a zero row stays zero."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    scaled: Features = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def k_center(features: Features, count: int, _random: np.random.Generator) -> list[int]:
    """The row farthest from all picked so far; the first is the one nearest the mean. `O(b n F)`.

    The largest distance left is at most twice the least that any `b` centres allow. Gonzalez, TCS 1985; Sener and
    Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018.
    """
    first = int(np.argmax(features @ features.mean(axis=0)))
    return farthest_first(features, count, first)


def farthest_first(
    points: NDArray[np.float32], count: int, first: int, covered: NDArray[np.float32] | None = None
) -> list[int]:
    """Rows of `points [n, P]`, each the farthest from the rows before it.

    Args:
        points: to pick from; need not be of length one.
        count: how many.
        first: the first row, if nothing is covered.
        covered: `[m, P]` points that are picked already, from which the first is the farthest.
    """
    squares = np.square(points).sum(axis=1)
    nearest = np.full(len(points), np.inf, dtype=np.float32)

    def approach(centre: NDArray[np.float32]) -> NDArray[np.float32]:
        distances: NDArray[np.float32] = np.maximum(squares - 2 * (points @ centre) + np.square(centre).sum(), 0)
        return np.minimum(nearest, distances)

    for centre in () if covered is None else covered:
        nearest = approach(centre)
    picked: list[int] = []
    while len(picked) < min(count, len(points)):
        row = first if not picked and covered is None else int(np.argmax(nearest))
        picked.append(row)
        nearest = approach(points[row])
        nearest[picked] = -np.inf
    return picked


def herding(features: Features, count: int, _random: np.random.Generator) -> list[int]:
    """The row that brings the mean of the picked nearest to the mean of all. `O(b n F)`.

    Welling, "Herding dynamical weights to learn", ICML 2009, in the form of Rebuffi et al., "iCaRL", CVPR 2017.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    total = np.zeros_like(mean)
    taken = np.zeros(len(features), dtype=np.bool_)
    picked: list[int] = []
    for size in range(1, min(count, len(features)) + 1):
        # |mean - (total + x) / size|^2 is least where x . (size * mean - total) is largest: all |x| are equal.
        gains = features @ (size * mean - total).astype(np.float32)
        gains[taken] = -np.inf
        row = int(np.argmax(gains))
        picked.append(row)
        taken[row] = True
        total += features[row]
    return picked


def max_herding(features: Features, count: int, _random: np.random.Generator) -> list[int]:
    """The row that adds most to the mean over all rows of their largest kernel value to a picked one.

    Bae et al., "Generalized coverage for more robust low-budget active learning", ECCV 2024, arXiv 2407.12212. The
    kernel is Gaussian; its width is the root mean square distance within the stratum. The gain of a row never grows,
    so old gains are bounds and few are computed again (lazy greedy): `O(n^2 F)` for the first pick, then `O(n F)` for
    each row looked at.
    """
    mean_square_distance = max(2 - 2 * float(np.square(features.mean(axis=0, dtype=np.float64)).sum()), 1e-6)
    covered = np.zeros(len(features), dtype=np.float32)

    def gains(rows: slice) -> NDArray[np.float64]:
        kernel = np.exp((features[rows] @ features.T - 1) / np.float32(mean_square_distance))  # |x-y|^2 / 2 is 1 - cos
        found: NDArray[np.float64] = np.maximum(kernel - covered, 0).sum(axis=1, dtype=np.float64)
        return found.round(_GAIN_DECIMALS)

    bounds: list[tuple[float, int]] = []
    for start in range(0, len(features), _BLOCK_ROWS):
        bounds += [(-gain, start + row) for row, gain in enumerate(gains(slice(start, start + _BLOCK_ROWS)).tolist())]
    heapq.heapify(bounds)
    picked: list[int] = []
    while len(picked) < min(count, len(features)):
        row = _pop_largest(bounds, lambda row: float(gains(slice(row, row + 1))[0]))
        picked.append(row)
        kernel = np.exp((features @ features[row] - 1) / np.float32(mean_square_distance))
        covered = np.maximum(covered, kernel)
    return picked


def _pop_largest(bounds: list[tuple[float, int]], gain_of: Callable[[int], float]) -> int:
    """The row whose gain is largest now, taken out of a heap of `(-bound, row)`."""
    while True:
        _, row = heapq.heappop(bounds)
        now = (-gain_of(row), row)
        if not bounds or now <= bounds[0]:
            return row
        heapq.heappush(bounds, now)


def typiclust(features: Features, count: int, random: np.random.Generator) -> list[int]:
    """The most typical row of each of `count` clusters, the largest cluster first.

    Typicality is the inverse of the mean distance to the 20 nearest rows of the same cluster. Where `count` is above
    500 clusters, or a cluster is empty, clusters give a second row once all have given one. Another budget makes other
    clusters, so the rows of a small budget need not begin those of a larger one. `O(b n F)` for each of k-means' 20
    iterations, and `O(m^2 F)` for a cluster of `m`. Hacohen et al., "Active learning on a budget", ICML 2022,
    arXiv 2202.02794.
    """
    count = min(count, len(features))
    if count == 0:
        return []
    clusters = k_means(features, min(count, MOST_CLUSTERS), random)
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    members.sort(key=lambda rows: (-len(rows), int(rows[0])))
    queues = [rows[np.argsort(-_typicality(features[rows]), kind="stable")].tolist() for rows in members]
    return [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)][:count]


def _typicality(features: Features) -> NDArray[np.float64]:
    """`[m]` for the rows of one cluster."""
    neighbours = min(NEIGHBOURS, len(features) - 1)
    if neighbours == 0:
        return np.zeros(len(features))
    found = np.empty(len(features))
    for start in range(0, len(features), _BLOCK_ROWS):
        squared = np.maximum(2 - 2 * features[start : start + _BLOCK_ROWS] @ features.T, 0).astype(np.float64)
        own = np.arange(len(squared))
        squared[own, start + own] = np.inf
        nearest = np.partition(squared, neighbours - 1, axis=1)[:, :neighbours]
        found[start : start + len(squared)] = 1 / (np.sqrt(nearest).mean(axis=1) + 1e-9)
    return found


def k_means(features: Features, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """The cluster of each row, `[n]`: Lloyd's iterations from k-means++ centres. A cluster may end empty."""
    centres = _spread_centres(features, count, random)
    clusters = np.zeros(len(features), dtype=np.int64)
    for _ in range(_LLOYD_ITERATIONS):
        before, clusters = clusters, _nearest_centre(features, centres)
        if (before == clusters).all():
            break
        sizes = np.bincount(clusters, minlength=count)
        sums = np.zeros(centres.shape, dtype=np.float64)
        np.add.at(sums, clusters, features)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres).astype(np.float32)
    return clusters


def _spread_centres(features: Features, count: int, random: np.random.Generator) -> Features:
    """k-means++: each next centre is drawn with a probability that grows with its squared distance."""
    rows = [int(random.integers(len(features)))]
    nearest = np.maximum(2 - 2 * (features @ features[rows[0]]), 0).astype(np.float64)
    while len(rows) < count:
        reach = np.cumsum(nearest)
        row = int(np.searchsorted(reach, random.random() * reach[-1], side="right")) if reach[-1] > 0 else len(rows)
        rows.append(min(row, len(features) - 1))
        nearest = np.minimum(nearest, np.maximum(2 - 2 * (features @ features[rows[-1]]), 0))
        nearest[rows] = 0
    return features[rows]


def _nearest_centre(features: Features, centres: Features) -> NDArray[np.int64]:
    squares = np.square(centres).sum(axis=1)
    parts = [
        np.argmin(squares - 2 * features[start : start + _BLOCK_ROWS] @ centres.T, axis=1)
        for start in range(0, len(features), _BLOCK_ROWS)
    ]
    return np.concatenate(parts)


COVERAGE_SELECTORS: Mapping[str, Selector] = MappingProxyType(
    {"k-center": k_center, "herding": herding, "max-herding": max_herding, "typiclust": typiclust}
)
"""By the name that the command line knows."""
