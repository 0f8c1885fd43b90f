"""What the teacher's answers say of images and class prompts: a zero-shot classifier, and targets to train on."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.purchase import buy
from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import EmbeddingMatrix, TeacherModel
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import PlannedRun, make_plan
from vl2v_client.teacher.targets import Fetch, ImageTargets, borrow_from_same_image, join_image_targets
from vl2v_client.teacher.text_classifier import zero_shot_classifier

Imputation = Callable[[ImageTargets], ImageTargets]
"""Gives views `[N, A]` that are asked about, and were not bought, a target."""

Trust = Callable[[ImageTargets], ImageTargets]
"""Weighs the answers `[N, A]` that were bought."""


def text_classifier(planned: PlannedRun, fetch: Fetch) -> EmbeddingMatrix:
    """Return the zero-shot classifier `[C, D]` of the bought class prompts.

    Raises:
        DataError: One of them was not bought.
    """
    queries, plan = planned.queries, planned.plan
    vectors = fetch(plan.text_keys)
    for query, key in zip(queries.texts, plan.text_keys, strict=True):
        if key not in vectors:
            raise DataError(
                f"there is no embedding of {query.name}, and nothing trains without it: buy it, or rename "
                "its class folder"
            )
    texts = np.stack([vectors[key] for key in plan.text_keys])
    return zero_shot_classifier(texts.reshape(len(queries.dataset.class_names), -1, plan.teacher.embedding_dim))


def image_targets(
    planned: PlannedRun, fetch: Fetch, *, allow_missing: bool, imputation: Imputation, trust: Trust | None = None
) -> ImageTargets:
    """Return targets of every view that is trained on, `[N, K, D]`, with one view, the canonical, if `K` is 0.

    A view that nobody asks about borrows its image's target; if answers are weighed, that of the canonical view alone.
    An image of which nothing was bought or imputed has none.

    Raises:
        CacheError: An embedding is missing, and may not be.
    """
    plan, train = planned.plan, planned.queries.split.train
    asked_views, views = planned.queries.asked_views, len(planned.queries.views[0]) or 1
    joined = join_image_targets(
        [plan.image_keys[row * asked_views : (row + 1) * asked_views] for row in range(len(train))],
        fetch,
        dimension=plan.teacher.embedding_dim,
        names=[str(sample.path) for sample in train],
        allow_missing=allow_missing,
    )
    asked = imputation(joined)
    if trust is not None:
        asked = trust(asked)
    if views > asked_views:
        further = ((0, 0), (0, views - asked_views))
        vectors_of_all = np.pad(asked.vectors, (*further, (0, 0)))
        asked = ImageTargets(vectors_of_all, np.pad(asked.bought, further), np.pad(asked.weights, further))
    return borrow_from_same_image(asked, lenders=asked_views if trust is None else 1)


def ask_teacher(
    images: Sequence[ImageQuery],
    prompts: Sequence[Sequence[str]],
    teacher: TeacherModel,
    context: PurchaseContext,
    *,
    progress: Progress,
) -> tuple[NDArray[np.float32], EmbeddingMatrix, PurchaseReport]:
    """Buy what the cache lacks of the answers on `N` views and on `T` texts for each of `C` classes; return all.

    Returns:
        Embeddings of the images, `[N, D]` float32, as they were sold; the zero-shot classifier of the prompts,
        `[C, D]`; and what was bought for them now.

    Raises:
        ClientError: As `buying.purchase.buy`.
    """
    texts = [TextQuery(text) for of_class in prompts for text in of_class]
    plan = make_plan(images, texts, teacher, context.cache, progress=progress)
    purchase = buy(plan, context, progress=progress)
    vectors = context.cache.get_many([*plan.image_keys, *plan.text_keys])
    embeddings, answers = (np.stack([vectors[key] for key in keys]) for keys in (plan.image_keys, plan.text_keys))
    classifier = zero_shot_classifier(answers.reshape(len(prompts), -1, teacher.embedding_dim))
    return embeddings.astype(np.float32), classifier, purchase
