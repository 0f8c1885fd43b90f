"""Imputed targets: the ridge against its definition, trusted by what it gets right on held-out images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vl2v_client.teacher.imputation import fit_weights, impute, linear_predictions
from vl2v_client.teacher.targets import ImageTargets
from vl2v_client.teacher.text_classifier import unit_rows

CLASSES, WIDTH, FEATURES = 3, 8, 6
SAMPLES = 60
LABELS = np.arange(SAMPLES, dtype=np.int64) % CLASSES
DOMAINS = ["photo"] * 30 + ["sketch"] * 30


def _world(noise: float = 0.05, views: int = 1) -> tuple[ImageTargets, NDArray[np.float64]]:
    """Embeddings that are nearly linear in the features, of which every other image's are bought."""
    random = np.random.default_rng(0)
    centres = 3 * random.normal(size=(CLASSES, FEATURES))
    features = centres[LABELS][:, None] + random.normal(size=(SAMPLES, views, FEATURES))
    vectors = features @ random.normal(size=(FEATURES, WIDTH)) + noise * random.normal(size=(SAMPLES, views, WIDTH))
    bought = np.zeros((SAMPLES, views), dtype=np.bool_)
    bought[::2] = True
    return ImageTargets.of_bought((unit_rows(vectors) * bought[..., None]).astype(np.float32), bought), features


def _imputed(targets: ImageTargets, features: NDArray[np.float64]) -> ImageTargets:
    return impute(targets, features=features, labels=LABELS, domains=DOMAINS, seed=0)


def test_what_was_bought_stays_and_the_rest_is_trusted_less() -> None:
    targets, features = _world(views=2)
    imputed = _imputed(targets, features)
    bought = targets.bought
    assert (imputed.bought == bought).all()
    assert (imputed.vectors[bought] == targets.vectors[bought]).all()
    assert (imputed.weights[bought] == 1).all()
    assert ((imputed.weights[~bought] > 0) & (imputed.weights[~bought] < 1)).all()
    np.testing.assert_allclose(np.linalg.norm(imputed.vectors, axis=-1), 1, atol=1e-6)
    again = _imputed(targets, features)
    assert (again.vectors == imputed.vectors).all()
    assert (again.weights == imputed.weights).all()


def test_the_class_mean_is_of_the_domain_then_of_the_class_then_nothing() -> None:
    targets, features = _world()
    bought = targets.bought.copy()
    bought[(LABELS == 0) & (np.array(DOMAINS) == "sketch")] = False  # class 0 was bought in photos only
    bought[LABELS == 2] = False  # class 2 was not bought at all
    kept = ImageTargets.of_bought((targets.vectors * bought[..., None]).astype(np.float32), bought)
    imputed = _imputed(kept, np.zeros_like(features))  # without a difference in features nothing is moved

    def mean(rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        return unit_rows(kept.vectors[rows & bought[:, 0], 0].astype(np.float64).mean(axis=0))

    photo = np.array(DOMAINS) == "photo"
    for row in np.flatnonzero(~bought[:, 0]):
        if LABELS[row] == 2:
            assert imputed.weights[row, 0] == 0
            assert not imputed.vectors[row, 0].any()
        else:
            own = LABELS[row] == LABELS
            expected = mean(own & (photo == photo[row])) if LABELS[row] == 1 else mean(own)
            np.testing.assert_allclose(imputed.vectors[row, 0], expected, atol=1e-6)


def test_ridge_finds_a_linear_world_and_its_trust_says_so() -> None:
    truth, features = _world(noise=0.0)
    everything = unit_rows(features[:, 0] @ np.linalg.lstsq(features[::2, 0], truth.vectors[::2, 0], rcond=None)[0])
    imputed = _imputed(truth, features)
    missing = ~truth.bought[:, 0]
    cosines = (imputed.vectors[missing, 0] * everything[missing]).sum(axis=-1)
    assert cosines.mean() > 0.97
    assert imputed.weights[missing].max() > _imputed(truth, np.zeros_like(features)).weights[missing].max()


def test_trust_is_measured_on_images_that_were_held_out() -> None:
    """Among random embeddings nothing can be told of one from others; an image's own is in every mean."""
    targets, features = _world()
    random = np.random.default_rng(5)
    vectors = unit_rows(random.normal(size=(SAMPLES, 1, WIDTH)))
    noise = replace(targets, vectors=(vectors * targets.bought[..., None]).astype(np.float32))
    imputed = _imputed(noise, random.normal(size=features.shape))
    assert imputed.weights[~targets.bought].max() < 0.15


@pytest.mark.parametrize("count", [0, 1])
def test_with_fewer_than_two_images_bought_every_view_trains_on_its_text(count: int) -> None:
    targets, features = _world()
    bought = np.zeros_like(targets.bought)
    bought[:count] = True
    few = ImageTargets.of_bought((targets.vectors * bought[..., None]).astype(np.float32), bought)
    assert _imputed(few, features).weights.sum() == count


def _fit(features: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights and penalty of a ridge regression with an intercept."""
    equal = np.full(len(features), 1 / len(features))
    return fit_weights(features - features.mean(axis=0), targets - targets.mean(axis=0), equal)


def test_the_penalty_grows_with_the_noise() -> None:
    random = np.random.default_rng(2)
    features = random.normal(size=(40, 20))
    signal = features @ random.normal(size=(20, 5))
    (_, clean), (_, noisy) = _fit(features, signal), _fit(features, random.normal(size=(40, 5)))
    assert clean < noisy
    np.testing.assert_allclose(linear_predictions(features, signal, features), signal, atol=1e-2)


def test_ridge_adds_nothing_to_the_class_mean_where_the_features_say_nothing() -> None:
    targets, _ = _world(noise=2.0)
    noise = np.random.default_rng(4).normal(size=(SAMPLES, 1, 40))
    mean, ridge = (_imputed(targets, features) for features in (np.zeros_like(noise), noise))
    cosines = (mean.vectors * ridge.vectors).sum(axis=-1)[~targets.bought]
    assert cosines.min() > 0.95


def _left_out_error(features: NDArray[np.float64], targets: NDArray[np.float64], penalty: float) -> float:
    """The sum of squared errors on each pair, of a ridge regression that is fitted on all others."""
    error = 0.0
    for row in range(len(features)):
        rest = np.arange(len(features)) != row
        mean, bias = features[rest].mean(axis=0), targets[rest].mean(axis=0)
        centred = features[rest] - mean
        gram = centred.T @ centred + penalty * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (targets[rest] - bias))
        error += float(np.square((features[row] - mean) @ weights + bias - targets[row]).sum())
    return error


def _penalties(features: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = features - features.mean(axis=0)
    grid: NDArray[np.float64] = 10.0 ** np.arange(-4, 6) * np.square(centred).sum() / features.shape[1]
    return grid


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_the_penalty_is_the_one_with_the_least_error_on_pairs_that_were_left_out(noise: float) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        features = random.normal(size=(12, 4))
        targets = features @ random.normal(size=(4, 3)) + noise * random.normal(size=(12, 3))
        errors = [_left_out_error(features, targets, penalty) for penalty in _penalties(features)]
        weights, penalty = _fit(features, targets)
        assert penalty == pytest.approx(_penalties(features)[int(np.argmin(errors))])
        centred, mean = features - features.mean(axis=0), targets.mean(axis=0)
        gram = centred.T @ centred + penalty * np.eye(4)
        np.testing.assert_allclose(weights, np.linalg.solve(gram, centred.T @ (targets - mean)), atol=1e-9)


def test_few_pairs_with_many_features_are_not_fitted_to_the_last() -> None:
    """A map that could fit every pair leaves leverages of one, and errors that must not round to nothing."""
    random = np.random.default_rng(3)
    features, targets = random.normal(size=(12, 40)), random.normal(size=(12, 5))
    _, penalty = _fit(features, targets)
    means = (targets.sum(axis=0) - targets) / 11
    assert _left_out_error(features, targets, penalty) <= 1.05 * np.square(means - targets).sum()
