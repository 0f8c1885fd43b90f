"""Which images to ask about when not all can be: rows in the order of buying.

Labels and domains are known and free, so a selector works within the strata of class x domain and takes from each in
proportion to its size. `random` is the baseline; `k-center` covers each stratum's features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_client.config.run import Selector
from vl2v_client.core.values import generator

RANDOM: Final = "random"


def select(
    name: Selector,
    *,
    labels: NDArray[np.int64],
    domains: Sequence[str],
    budget: int,
    seed: int,
    features: NDArray[np.floating] | None = None,
) -> list[int]:
    """Return rows in the order of buying. A smaller budget gives the beginning of the same list.

    Args:
        name: Name of the selector.
        labels: `[N]`, class of each image.
        domains: `[N]`, names.
        budget: Number of rows; all `N` if there are no more.
        seed: Seed of the random order and of ties between strata.
        features: `[N, F]` of the frozen student, for `k-center`.

    Raises:
        ValueError: `k-center` got no features.
    """
    turns = stratified_turns(labels, domains, seed)[:budget]
    if name == RANDOM:
        return [row for _, row in turns]
    if features is None:
        raise ValueError(f"{name} reads the student's features")
    strata, queues = _strata(labels, domains), {}
    for stratum, count in Counter(stratum for stratum, _ in turns).items():
        rows = np.array(strata[stratum])
        queues[stratum] = iter(rows[k_center(features[rows], count)].tolist())  # the rows that cover it, in their order
    return [next(queues[stratum]) for stratum, _ in turns]


def stratified_turns(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> list[tuple[tuple[str, int], int]]:
    """Return all rows in stratified random order, each with its stratum `(domain, class)`.

    The `j`-th row (from 0) of a stratum of `n` comes at the share `(j + 1/2) / n` of the way, so every beginning of
    the list holds each stratum in proportion to its size; strata of one size take turns in random order.
    """
    random = generator(seed, "select")
    strata = _strata(labels, domains)
    ties = random.permutation(len(strata))
    timed = [
        ((2 * turn + 1) / (2 * len(rows)), int(tie), key, rows[place])
        for tie, (key, rows) in zip(ties, sorted(strata.items()), strict=True)
        for turn, place in enumerate(random.permutation(len(rows)).tolist())
    ]
    return [(key, row) for _, _, key, row in sorted(timed)]


def k_center(features: NDArray[np.floating], count: int) -> list[int]:
    """Return the row farthest from all picked so far; the first is the one nearest the mean. `O(count n F)`.

    Features are scaled to length one, so a squared distance is `2 - 2 cos`; a tie falls to the lower row. The largest
    distance left is at most twice the least that any `count` centres allow. Gonzalez, TCS 1985; Sener and Savarese,
    "Active learning for convolutional neural networks: a core-set approach", ICLR 2018.

    Args:
        features: `[n, F]`.
        count: Number of rows to pick; all `n` if there are no more.
    """
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    points = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    squares = np.square(points).sum(axis=1)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    picked: list[int] = []
    while len(picked) < min(count, len(points)):
        row = int(np.argmax(nearest if picked else points @ points.mean(axis=0)))
        picked.append(row)
        distances = np.maximum(squares - 2 * (points @ points[row]) + squares[row], 0)
        nearest = np.minimum(nearest, distances)
        nearest[picked] = -np.inf
    return picked


def _strata(labels: NDArray[np.int64], domains: Sequence[str]) -> dict[tuple[str, int], list[int]]:
    """Return the rows of each domain and class, in order."""
    strata: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(domains, labels.tolist(), strict=True)):
        strata.setdefault(key, []).append(row)
    return strata
