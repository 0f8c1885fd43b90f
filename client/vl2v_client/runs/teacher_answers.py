"""What the teacher's answers say of images and class prompts: a zero-shot classifier, and targets to train on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.answers import ask
from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import EmbeddingMatrix, TeacherModel
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.teacher.stored_vectors import StoredFetch, StoredVectors, in_memory
from vl2v_client.teacher.targets import Fetch, ImageTargets, borrow_from_same_image, join_image_targets
from vl2v_client.teacher.text_classifier import zero_shot_classifier


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


def asked_targets(planned: PlannedRun, fetch: Fetch, *, allow_missing: bool) -> ImageTargets:
    """Return targets of the views that are asked about, `[N, A, D]`.

    Raises:
        CacheError: An embedding is missing, and may not be.
    """
    plan, train, asked_views = planned.plan, planned.queries.split.train, planned.queries.asked_views
    if isinstance(fetch, StoredFetch):
        rows = fetch.rows(plan.image_keys).reshape(len(train), asked_views)
        if allow_missing or (rows >= 0).all():
            return ImageTargets.of_bought(StoredVectors(rows, fetch.file.vectors), rows >= 0)
    return join_image_targets(
        [plan.image_keys[row * asked_views : (row + 1) * asked_views] for row in range(len(train))],
        fetch,
        dimension=plan.teacher.embedding_dim,
        names=[str(sample.path) for sample in train],
        allow_missing=allow_missing,
    )


def lend_to_all_views(asked: ImageTargets, views: int, *, lenders: int) -> ImageTargets:
    """Return targets of all `views` that are trained on, `[N, K, D]`, of those that are asked about, `[N, A, D]`.

    A view that nobody asks about borrows its image's target, that of its first `lenders` views. An image of which
    nothing was bought or imputed has none; without lenders such a view has none either.
    """
    further = ((0, 0), (0, views - asked.bought.shape[1]))
    if views > asked.bought.shape[1]:
        vectors = np.pad(in_memory(asked.vectors), (*further, (0, 0)))
        asked = ImageTargets(vectors, np.pad(asked.bought, further), np.pad(asked.weights, further))
    return borrow_from_same_image(asked, lenders=lenders)


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
    answers = ask(images, texts, teacher, context, progress=progress)
    classifier = zero_shot_classifier(answers.texts.reshape(len(prompts), -1, teacher.embedding_dim))
    return answers.images, classifier, answers.purchase
