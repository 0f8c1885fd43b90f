"""Selectors: each by the property that defines it, on made-up features; a smaller budget begins a larger one."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vl2v_client.core.errors import UsageError
from vl2v_client.planning import coverage
from vl2v_client.planning.coverage import k_means, unit_features
from vl2v_client.planning.selection import MARGIN, PCORESET, RANDOM, SELECTORS, select

Array = NDArray[np.float32]


def _cloud(count: int, width: int = 8, seed: int = 0) -> Array:
    return unit_features(np.random.default_rng(seed).normal(size=(count, width)) + 1)


def _pick(name: str, features: Array, budget: int) -> list[int]:
    """From one stratum."""
    labels = np.zeros(len(features), dtype=np.int64)
    probabilities = np.abs(features) / np.abs(features).sum(axis=1, keepdims=True)
    domains = ["photo"] * len(features)
    return select(
        name, labels=labels, domains=domains, budget=budget, seed=3, features=features, probabilities=probabilities
    )


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_names_each_row_once_and_stops_at_the_end(name: str) -> None:
    features = _cloud(23)
    assert _pick(name, features, 0) == []
    assert sorted(_pick(name, features, 99)) == list(range(23))
    assert len(set(_pick(name, features, 9))) == 9
    assert _pick(name, features, 9) == _pick(name, features, 9)
    alike = np.ones((5, 4), dtype=np.float32)
    assert sorted(_pick(name, alike, 5)) == list(range(5))


@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "typiclust"])
def test_a_smaller_budget_is_the_beginning_of_a_larger_one(name: str) -> None:
    features = _cloud(40)
    longest = _pick(name, features, 40)
    for budget in (1, 7, 20):
        assert _pick(name, features, budget) == longest[:budget]


@pytest.mark.parametrize("name", [RANDOM, "herding", "typiclust"])
def test_strata_are_served_in_proportion(name: str) -> None:
    sizes = {("photo", 0): 40, ("sketch", 0): 20, ("sketch", 1): 40}  # one class is missing in a domain
    domains = [domain for (domain, _), size in sizes.items() for _ in range(size)]
    labels = np.array([label for (_, label), size in sizes.items() for _ in range(size)])
    features = _cloud(100)
    for budget in (4, 10, 33, 57, 100):
        rows = select(name, labels=labels, domains=domains, budget=budget, seed=0, features=features)
        counts = Counter((domains[row], int(labels[row])) for row in rows)
        for stratum, size in sizes.items():
            assert abs(counts[stratum] - budget * size / 100) < 1, (budget, stratum)


def test_equal_strata_get_one_each_before_any_gets_two() -> None:
    labels = np.repeat(np.arange(7), 12)
    rows = select(RANDOM, labels=labels, domains=["a"] * 84, budget=7, seed=0)
    assert sorted(labels[rows].tolist()) == list(range(7))
    others = select(RANDOM, labels=labels, domains=["a"] * 84, budget=7, seed=1)
    assert rows != others


def test_k_center_is_within_twice_the_best_radius() -> None:
    for seed in range(5):
        features = _cloud(13, seed=seed)
        distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
        for budget in (1, 2, 3):
            best = min(
                float(distances[:, list(rows)].min(axis=1).max()) for rows in itertools.combinations(range(13), budget)
            )
            radius = distances[:, _pick("k-center", features, budget)].min(axis=1).max()
            assert radius <= 2 * best + 1e-5


def test_herding_nears_the_mean_faster_than_chance() -> None:
    features = _cloud(200)
    mean = features.mean(axis=0)

    def error(rows: list[int]) -> float:
        return float(np.linalg.norm(features[rows].mean(axis=0) - mean))

    errors = [error(_pick("herding", features, budget)) for budget in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < error(_pick(RANDOM, features, 16)) / 3
    first = _pick("herding", features, 1)[0]
    assert first == int(np.argmin(np.linalg.norm(features - mean, axis=1)))


def test_max_herding_equals_the_plain_greedy_choice() -> None:
    features = _cloud(60)
    squared = np.square(features[:, None] - features[None]).sum(axis=-1)
    kernel = np.exp(-squared / (2 * squared.mean()))
    picked: list[int] = []
    for _ in range(12):
        coverages = [kernel[:, [*picked, row]].max(axis=1).mean() for row in range(60)]
        picked.append(int(np.argmax(coverages)))
    assert _pick("max-herding", features, 12) == picked


def test_max_herding_breaks_ties_by_row_and_not_by_rounding() -> None:
    pairs = np.eye(8, 16, dtype=np.float32).repeat(2, axis=0)
    noise = np.random.default_rng(0).standard_normal(pairs.shape).astype(np.float32)
    for count in range(1, 17):
        assert _pick("max-herding", pairs + 1e-7 * noise, count) == _pick("max-herding", pairs, count)


def test_max_herding_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features = _cloud(60)
    whole = _pick("max-herding", features, 12)
    monkeypatch.setattr(coverage, "_BLOCK_ROWS", 7)
    assert _pick("max-herding", features, 12) == whole


def test_typiclust_takes_a_typical_point_of_each_cluster_largest_first() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(3, 6)
    blobs = [
        centres[i] + np.r_[0.02 * random.normal(size=(size - 3, 6)), 0.3 * random.normal(size=(3, 6))]
        for i, size in enumerate((30, 50, 20))
    ]
    rows = _pick("typiclust", np.concatenate(blobs).astype(np.float32), 3)
    blob = np.repeat([0, 1, 2], (30, 50, 20))
    assert blob[rows].tolist() == [1, 0, 2]
    outliers = {27, 28, 29, 77, 78, 79, 97, 98, 99}
    assert not outliers & set(rows)


def test_k_means_finds_separate_blobs() -> None:
    blobs = unit_features(np.repeat(np.eye(4, 8), 25, axis=0) + 0.05 * np.random.default_rng(0).normal(size=(100, 8)))
    clusters = k_means(blobs, 4, np.random.default_rng(1)).reshape(4, 25)
    assert (clusters == clusters[:, :1]).all()
    assert len(set(clusters[:, 0].tolist())) == 4


def test_margin_takes_the_closest_calls_that_are_not_chosen_yet() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.45, 0.05], [0.4, 0.3, 0.3], [0.34, 0.33, 0.33]])
    facts: dict[str, Any] = {"labels": np.zeros(4, np.int64), "domains": ["a"] * 4, "seed": 0}
    facts["probabilities"] = probabilities
    assert select(MARGIN, budget=3, **facts) == [3, 1, 2]
    assert select(MARGIN, budget=2, chosen=[3], **facts) == [1, 2]


def test_pcoreset_covers_the_probabilities() -> None:
    random = np.random.default_rng(0)
    corners = np.eye(5)[random.integers(0, 5, 300)] * 0.9 + 0.02
    probabilities = corners / corners.sum(axis=1, keepdims=True)
    facts: dict[str, Any] = {"labels": np.zeros(300, np.int64), "domains": ["a"] * 300, "seed": 0}
    facts["probabilities"] = probabilities
    rows = select(PCORESET, budget=5, **facts)
    assert set(probabilities[rows].argmax(axis=1).tolist()) == set(range(5))
    chosen = [int(np.flatnonzero(probabilities.argmax(axis=1) == label)[0]) for label in (0, 2)]
    rest = select(PCORESET, budget=3, chosen=chosen, **facts)
    assert set(probabilities[rest].argmax(axis=1).tolist()) == {1, 3, 4}


def test_an_unknown_selector_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no selector 'best'; there are: random, k-center.*pcoreset"):
        _pick("best", _cloud(3), 1)
