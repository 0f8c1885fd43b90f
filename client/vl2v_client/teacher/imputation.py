"""Targets of views that were not bought, by ridge regression on the frozen student's features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import generator
from vl2v_client.teacher.stored_vectors import in_memory
from vl2v_client.teacher.targets import ImageTargets

NO_IMPUTATION = "none"

FOLDS = 5
"""In which bought images are held out to measure trust."""

_SHORTEST = 1e-6

_PENALTIES = 10.0 ** np.arange(-4, 6)
"""Shares of the features' mean variance that the penalty is chosen from."""


def linear_predictions(
    features: NDArray[np.floating], targets: NDArray[np.floating], asked: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return what ridge regression with an intercept, of targets `[n, D]` on features `[n, F]`, makes of `[m, F]`.

    In float64; `n` is at least 2, and the penalty is chosen as in `fit_weights`.
    """
    mean, bias = features.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    equal = np.full(len(features), 1 / len(features))
    weights, _ = fit_weights(features.astype(np.float64) - mean, targets.astype(np.float64) - bias, equal)
    return np.asarray((asked.astype(np.float64) - mean) @ weights + bias)


def fit_weights(
    centred: NDArray[np.float64], wanted: NDArray[np.float64], mean_leverage: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the map `[F, D]` between centred features and targets, and its penalty of ten, chosen by leaving one out.

    One eigendecomposition of `[F, F]` serves every penalty; a left-out error is the residual divided by one minus the
    pair's leverage (Allen's PRESS), which is exact. Takes `O(n F (F + 10 D))` and holds about `8 n (2 F + 3 D)` bytes.

    Args:
        centred: `[n, F]`, features less the mean of their group.
        wanted: `[n, D]`, targets less the mean of theirs.
        mean_leverage: `[n]`, one over the size of the pair's group. A pair alone in its group chooses nothing.
    """
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0)
    turned = centred @ vectors  # [n, F]
    projected = turned.T @ wanted  # [F, D]
    judged = mean_leverage < 1

    def left_out_error(penalty: float) -> float:
        shrunk = 1 / (values + penalty)
        leverage = mean_leverage + np.square(turned) @ shrunk
        errors = (wanted - turned @ (shrunk[:, None] * projected)) / np.maximum(1 - leverage, 1e-12)[:, None]
        return float(np.square(errors[judged]).sum())

    penalties = (_PENALTIES * max(float(values.mean()), 1e-12)).tolist()
    penalty = min(reversed(penalties), key=left_out_error)  # of equals the largest, which claims least
    return vectors @ (projected / (values + penalty)[:, None]), penalty


@dataclass(frozen=True)
class ViewFacts:
    """What is known of `V` views whether or not they are bought.

    Attributes:
        features: `[V, F]` of the frozen student.
        labels: `[V]`.
        strata: `[V]`, one number per domain and class.
    """

    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    strata: NDArray[np.int64]

    def at(self, chosen: NDArray[np.int64]) -> "ViewFacts":
        """Return the facts of some of the views."""
        return ViewFacts(self.features[chosen], self.labels[chosen], self.strata[chosen])


def class_mean(bought: ViewFacts, embeddings: NDArray[np.float64], asked: ViewFacts) -> NDArray[np.float64]:
    """Return the mean embedding of the same class and domain, or of the class where the domain has none."""
    by_stratum = _means(bought.strata, embeddings, asked.strata)
    by_class = _means(bought.labels, embeddings, asked.labels)
    return np.where(np.isin(asked.strata, bought.strata)[:, None], by_stratum, by_class)


def ridge(bought: ViewFacts, embeddings: NDArray[np.float64], asked: ViewFacts) -> NDArray[np.float64]:
    """Return the class mean, moved by what sets the frozen student's features apart from their own class mean.

    How far is a ridge regression from the one difference to the other, with the mean of each class and domain left
    free. The label is known and says most of the embedding: a map from features alone is worse.
    """
    features = bought.features.astype(np.float64)
    _, stratum, sizes = np.unique(bought.strata, return_inverse=True, return_counts=True)
    weights, _ = fit_weights(
        features - class_mean(bought, features, bought),
        embeddings - class_mean(bought, embeddings, bought),
        1 / sizes[stratum],
    )
    moved = (asked.features - class_mean(bought, features, asked)) @ weights
    return np.where(np.isin(asked.labels, bought.labels)[:, None], class_mean(bought, embeddings, asked) + moved, 0)


def impute(
    targets: ImageTargets,
    *,
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    domains: Sequence[str],
    seed: int,
) -> ImageTargets:
    """Give the views that have no target the one that `ridge` imputes.

    Their weight is the trust in it: the mean cosine between bought embeddings and what it makes of them when
    their images are held out, in five folds; never above 1, the weight of a bought one. Where fewer than two images
    are bought, or none of the view's class, the view trains on its text alone. `features` are the frozen student's,
    `[N, K, F]`, of `N` samples with labels and domains `[N]`; the seed is that of the folds.
    """
    samples, views = targets.bought.shape
    bought, lacking = np.flatnonzero(targets.bought), np.flatnonzero(targets.weights == 0)
    if not len(lacking):
        return targets
    strata = np.unique(np.asarray(domains), return_inverse=True)[1] * (int(labels.max(initial=0)) + 1) + labels
    rows = np.repeat(np.arange(samples), views)
    facts = ViewFacts(features.reshape(len(rows), -1), labels[rows], strata[rows])
    flat = in_memory(targets.vectors).reshape(samples * views, -1)
    embeddings = flat[bought].astype(np.float64)
    trust = _measure_trust(facts.at(bought), embeddings, bought // views, seed)
    if trust == 0:
        return targets
    guesses = ridge(facts.at(bought), embeddings, facts.at(lacking))
    lengths = np.linalg.norm(guesses, axis=1)
    guessed = lengths > _SHORTEST
    vectors, weights = flat.copy(), targets.weights.reshape(-1).copy()
    vectors[lacking[guessed]] = guesses[guessed] / lengths[guessed, None]
    weights[lacking[guessed]] = trust
    return replace(targets, vectors=vectors.reshape(targets.vectors.shape), weights=weights.reshape(samples, views))


def _measure_trust(bought: ViewFacts, embeddings: NDArray[np.float64], images: NDArray[np.int64], seed: int) -> float:
    """Return the mean cosine on held-out images, 0 to 1; 0 if there is nothing to hold out."""
    distinct = np.unique(images)
    if len(distinct) < 2:
        return 0.0
    fold_of = generator(seed, "impute").permutation(len(distinct)) % min(FOLDS, len(distinct))
    folds = fold_of[np.searchsorted(distinct, images)]
    cosines = []
    for fold in range(int(folds.max()) + 1):
        held, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        guesses = ridge(bought.at(kept), embeddings[kept], bought.at(held))
        lengths = np.linalg.norm(guesses, axis=1)
        guessed = lengths > _SHORTEST
        cosines.append((guesses[guessed] * embeddings[held[guessed]]).sum(axis=1) / lengths[guessed])
    joined = np.concatenate(cosines)
    return float(np.clip(joined.mean(), 0, 1)) if len(joined) else 0.0


def _means(groups: NDArray[np.int64], embeddings: NDArray[np.float64], asked: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean embedding of each asked group; zero where it has none."""
    count = int(max(groups.max(initial=0), asked.max(initial=0))) + 1
    sums, sizes = np.zeros((count, embeddings.shape[1])), np.bincount(groups, minlength=count)
    np.add.at(sums, groups, embeddings)
    means: NDArray[np.float64] = sums / np.maximum(sizes, 1)[:, None]
    return means[asked]
