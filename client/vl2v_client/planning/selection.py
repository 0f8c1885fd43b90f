"""Which images to ask about when not all can be: rows in the order of buying.

Labels and domains are known and free, so every selector but the two that read probabilities works within the strata of
class x domain and takes from each in proportion to its size. `random` is the baseline that the others have to beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import UsageError
from vl2v_client.core.seeds import generator
from vl2v_client.planning.coverage import COVERAGE_SELECTORS, farthest_first, unit_features

RANDOM = "random"
MARGIN = "margin"
PCORESET = "pcoreset"

PROBABILITY_SELECTORS = (MARGIN, PCORESET)
"""Those that need the probabilities of a student that has learnt from a first purchase."""

SELECTORS = (RANDOM, *COVERAGE_SELECTORS, *PROBABILITY_SELECTORS)
"""The names that the command line knows; the first is the default."""


def select(
    name: str,
    *,
    labels: NDArray[np.int64],
    domains: Sequence[str],
    budget: int,
    seed: int,
    features: NDArray[np.floating] | None = None,
    probabilities: NDArray[np.floating] | None = None,
    chosen: Sequence[int] = (),
) -> list[int]:
    """Rows in the order of buying. A smaller budget gives the beginning of the same list, but for `typiclust`.

    Args:
        name: of `SELECTORS`.
        labels: `[N]`, class of each image.
        domains: `[N]`, names.
        budget: how many rows; all `N` if there are no more.
        seed: of ties, the random order and k-means.
        features: `[N, F]` of the frozen student, for the selectors of `planning.coverage`.
        probabilities: `[N, C]` of the student, for `margin` and `pcoreset`.
        chosen: rows that a first round took, for `margin` and `pcoreset`: left out, and, for `pcoreset`, covered.

    Raises:
        UsageError: there is no such selector.
        ValueError: what the selector reads was not given.
    """
    check_selector(name)
    if name in PROBABILITY_SELECTORS:
        if probabilities is None:
            raise ValueError(f"{name} reads the student's probabilities")
        pick = _margin if name == MARGIN else _pcoreset
        return pick(probabilities, chosen, budget)
    turns = stratified_turns(labels, domains, seed)[:budget]
    if name == RANDOM:
        return [row for _, row in turns]
    if features is None:
        raise ValueError(f"{name} reads the student's features")
    return _cover(name, features, labels, domains, [stratum for stratum, _ in turns], seed)


def check_selector(name: str) -> None:
    """Refuse a name that is not of `SELECTORS`.

    Raises:
        UsageError: it is none.
    """
    if name not in SELECTORS:
        raise UsageError(f"no selector {name!r}; there are: {', '.join(SELECTORS)}")


def stratified_turns(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> list[tuple[tuple[str, int], int]]:
    """All rows in stratified random order, each with its stratum `(domain, class)`.

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


def _strata(labels: NDArray[np.int64], domains: Sequence[str]) -> dict[tuple[str, int], list[int]]:
    """The rows of each domain and class, in order."""
    strata: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(domains, labels.tolist(), strict=True)):
        strata.setdefault(key, []).append(row)
    return strata


def _cover(
    name: str,
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    domains: Sequence[str],
    turns: Sequence[tuple[str, int]],
    seed: int,
) -> list[int]:
    """Fills each stratum's turns with the rows that the selector takes in it, in its order."""
    strata, queues = _strata(labels, domains), {}
    for (domain, label), count in Counter(turns).items():
        rows = np.array(strata[domain, label])
        random = generator(seed, "select", name, domain, label)
        picked = COVERAGE_SELECTORS[name](unit_features(features[rows]), count, random)
        queues[domain, label] = iter(rows[picked].tolist())
    return [next(queues[turn]) for turn in turns]


def _margin(probabilities: NDArray[np.floating], chosen: Sequence[int], budget: int) -> list[int]:
    """Rows whose two most probable classes are closest, closest first. `O(N C)`.

    Scheffer et al., "Active hidden Markov models for information extraction", IDA 2001.
    """
    if probabilities.shape[1] < 2:
        margins = np.ones(len(probabilities))
    else:
        second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
        margins = first - second
    order = np.argsort(margins, kind="stable").tolist()
    taken = set(chosen)
    return [row for row in order if row not in taken][:budget]


def _pcoreset(probabilities: NDArray[np.floating], chosen: Sequence[int], budget: int) -> list[int]:
    """The row whose probabilities are farthest from those of every row taken so far. `O(b N C)`.

    Kang et al., "ActiveKD & PCoreSet", arXiv 2506.00910, with the student's probabilities; without `chosen`, it begins
    with the row that is surest of its class.
    """
    taken = set(chosen)
    rest = np.array([row for row in range(len(probabilities)) if row not in taken], dtype=np.int64)
    if not len(rest):
        return []
    points = probabilities[rest].astype(np.float32)
    covered = probabilities[list(chosen)].astype(np.float32) if taken else None
    surest = int(np.argmax(points.max(axis=1)))
    return [int(rest[place]) for place in farthest_first(points, budget, surest, covered)]
