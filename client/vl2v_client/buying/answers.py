"""Vectors of images and texts, of which only those are bought that the cache lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.purchase import buy
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.queries import ImageQuery, PictureQuery, TextQuery
from vl2v_client.planning.query_plan import make_plan


@dataclass(frozen=True)
class Answers:
    """What a vendor sold, now or earlier.

    Attributes:
        images: `[N, D]` float32, of unit norm to float16 precision, one row for each image query.
        texts: `[T, D]`, likewise.
        purchase: What was bought now.
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    purchase: PurchaseReport


def ask(
    images: Sequence[ImageQuery | PictureQuery],
    texts: Sequence[TextQuery],
    teacher: TeacherModel,
    context: PurchaseContext,
    *,
    progress: Progress = silent,
) -> Answers:
    """Buy what the cache lacks of `N` images and `T` texts; return the vectors of all.

    Raises:
        ClientError: As `buying.purchase.buy`.
    """
    plan = make_plan(images, texts, teacher, context.cache, progress=progress)
    purchase = buy(plan, context, progress=progress)
    vectors = context.cache.get_many([*plan.image_keys, *plan.text_keys])

    def rows(keys: Sequence[str]) -> NDArray[np.float32]:
        found = np.empty((len(keys), teacher.embedding_dim), dtype=np.float32)
        for row, key in enumerate(keys):
            found[row] = vectors[key]
        return found

    return Answers(rows(plan.image_keys), rows(plan.text_keys), purchase)
