"""What a vendor's teacher says of images and class prompts, outside a run: for a pilot, or for images never asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.purchase import buy
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import EmbeddingMatrix, TeacherModel
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_client.teacher.text_classifier import zero_shot_classifier


@dataclass(frozen=True)
class TeacherAnswers:
    """The teacher's embeddings, bought now or earlier.

    Attributes:
        images: Embeddings of the images, `[N, D]` float32, as they were sold.
        classifier: Zero-shot classifier of the prompts, `[C, D]`.
        purchase: What was bought for it now.
    """

    images: NDArray[np.float32]
    classifier: EmbeddingMatrix
    purchase: PurchaseReport


def ask_teacher(
    images: Sequence[ImageQuery],
    prompts: Sequence[Sequence[str]],
    teacher: TeacherModel,
    context: PurchaseContext,
    *,
    progress: Progress,
) -> TeacherAnswers:
    """Buy what the cache lacks of the answers, and return all of them.

    Args:
        images: `N` views of images.
        prompts: `T` texts for each of `C` classes.
        teacher: Model to ask, as `buying.vendor_meeting.meet` gives it.
        context: Whom to buy from.
        progress: Gets every step that takes time.

    Raises:
        ClientError: As `buying.purchase.buy`.
    """
    texts = [TextQuery(text) for of_class in prompts for text in of_class]
    plan = make_plan(images, texts, teacher, context.cache, progress=progress)
    purchase = buy(plan, context, progress=progress)
    vectors = context.cache.get_many([*plan.image_keys, *plan.text_keys])
    text_vectors = np.stack([vectors[key] for key in plan.text_keys])
    classifier = zero_shot_classifier(text_vectors.reshape(len(prompts), -1, teacher.embedding_dim))
    image_vectors = np.stack([vectors[key] for key in plan.image_keys]).astype(np.float32)
    return TeacherAnswers(image_vectors, classifier, purchase)
