"""Selectors: each by the property that defines it, on made-up features; a smaller budget begins a larger one."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from vl2v_client.config.run import Selector
from vl2v_client.planning.choice import RANDOM, select

SELECTORS = get_args(Selector)

Array = NDArray[np.float32]


def _cloud(count: int, width: int = 8, seed: int = 0) -> Array:
    points = np.random.default_rng(seed).normal(size=(count, width)) + 1
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def _pick(name: str, features: Array, budget: int) -> list[int]:
    """From one stratum."""
    labels = np.zeros(len(features), dtype=np.int64)
    return select(name, labels=labels, domains=["photo"] * len(features), budget=budget, seed=3, features=features)


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_names_each_row_once_and_stops_at_the_end(name: str) -> None:
    features = _cloud(23)
    assert _pick(name, features, 0) == []
    assert sorted(_pick(name, features, 99)) == list(range(23))
    assert len(set(_pick(name, features, 9))) == 9
    assert _pick(name, features, 9) == _pick(name, features, 9)
    alike = np.ones((5, 4), dtype=np.float32)
    assert sorted(_pick(name, alike, 5)) == list(range(5))


@pytest.mark.parametrize("name", SELECTORS)
def test_a_smaller_budget_is_the_beginning_of_a_larger_one(name: str) -> None:
    features = _cloud(40)
    longest = _pick(name, features, 40)
    for budget in (1, 7, 20):
        assert _pick(name, features, budget) == longest[:budget]


@pytest.mark.parametrize("name", SELECTORS)
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


def test_k_center_does_not_read_the_length_of_features() -> None:
    features = _cloud(30)
    lengths = np.random.default_rng(1).uniform(0.1, 10, size=(30, 1)).astype(np.float32)
    assert _pick("k-center", features * lengths, 12) == _pick("k-center", features, 12)
