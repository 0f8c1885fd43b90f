"""The image targets of a run: what was bought about its views, and what texts make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.planning.queries import TextQuery
from vl2v_client.recipes.purchase import PlannedRun
from vl2v_client.recipes.queries import RunQueries
from vl2v_client.teacher.classifier import zero_shot_classifier
from vl2v_client.teacher.directions import direct_styled_views, style_directions
from vl2v_client.teacher.targets import ImageTargets, borrow_from_same_image, join_image_targets

Vectors = Mapping[str, NDArray[np.float16]]
"""What the cache holds, by cache key."""

Imputation = Callable[[ImageTargets], ImageTargets]
"""Gives views `[N, A]` that are asked about, and were not bought, a target."""


def text_classifier(planned: PlannedRun, vectors: Vectors) -> EmbeddingMatrix:
    """The zero-shot classifier `[C, D]` of the bought class prompts.

    Raises:
        DataError: one of them was not bought.
    """
    queries, plan = planned.queries, planned.plan
    texts = _bought_texts(queries.texts, plan.text_keys[: len(queries.texts)], vectors)
    return zero_shot_classifier(texts.reshape(len(queries.dataset.class_names), -1, plan.teacher.embedding_dim))


def image_targets(
    planned: PlannedRun,
    vectors: Vectors,
    classifier: EmbeddingMatrix,
    *,
    allow_missing: bool,
    imputation: Imputation | None = None,
) -> ImageTargets:
    """Targets of every view that is trained on, `[N, K, D]`, with one view, the canonical, if `K` is 0.

    A view that nobody asks about borrows its image's target, or has, if it is styled and its style was bought in
    words, the one that they make. An image of which nothing was bought or imputed has none.

    Raises:
        CacheError: an embedding is missing, and may not be.
        DataError: a style's text was not bought.
    """
    queries, plan = planned.queries, planned.plan
    asked = asked_targets(queries, plan, vectors, allow_missing=allow_missing)
    if imputation is not None:
        asked = imputation(asked)
    targets = _placed(asked, queries.asked_views, len(queries.views[0]) or 1)
    if not queries.worded_styles:
        return borrow_from_same_image(targets)
    texts = _bought_texts(queries.style_texts, plan.text_keys[len(queries.texts) :], vectors)
    labels = np.array([sample.class_index for sample in queries.split.train], dtype=np.int64)
    directions = style_directions(queries.worded_styles, texts, classifier)
    return borrow_from_same_image(direct_styled_views(targets, queries.views, labels, directions))


def asked_targets(queries: RunQueries, plan: QueryPlan, vectors: Vectors, *, allow_missing: bool) -> ImageTargets:
    """What was bought about the `A` views that are asked about, `[N, A, D]`.

    Raises:
        CacheError: an embedding is missing, and may not be.
    """
    count, train = len(queries.asked_views), queries.split.train
    return join_image_targets(
        [plan.image_keys[row * count : (row + 1) * count] for row in range(len(train))],
        vectors,
        dimension=plan.teacher.embedding_dim,
        names=[str(sample.path) for sample in train],
        allow_missing=allow_missing,
    )


def _placed(asked: ImageTargets, columns: Sequence[int], count: int) -> ImageTargets:
    """Targets of `count` views, of which `asked` has those of `columns`; the others have none."""
    samples, _, dimension = asked.vectors.shape
    vectors = np.zeros((samples, count, dimension), dtype=np.float32)
    bought = np.zeros((samples, count), dtype=np.bool_)
    weights = np.zeros((samples, count), dtype=np.float32)
    places = list(columns)
    vectors[:, places], bought[:, places], weights[:, places] = asked.vectors, asked.bought, asked.weights
    return ImageTargets(vectors, bought, weights)


def _bought_texts(queries: Sequence[TextQuery], keys: Sequence[str], vectors: Vectors) -> NDArray[np.float16]:
    for query, key in zip(queries, keys, strict=True):
        if key not in vectors:
            raise DataError(
                f"there is no embedding of {query.name}, and nothing trains without it: buy it, or rename "
                "its class folder"
            )
    return np.stack([vectors[key] for key in keys])
