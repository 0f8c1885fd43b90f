"""What a student's embeddings cost, for reports: queries and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vl2v_client.core.progress import format_micro


@dataclass(frozen=True, slots=True)
class Purchase:
    """What the embeddings cost that the exported student was trained with.

    The same for a first run, a resumed one and one that found everything in the cache: each query is paid once.

    Attributes:
        images: Distinct image queries.
        texts: Distinct text queries.
        amount_micro: Price of them, in micro-units.
        currency: Currency of the amount.
        test_images: Queries beside them, on test images, for the teacher's row of the table alone.
        published_queries: What the published loop would have asked for the same student, `stages.online_queries`.
        other_queries: Queries that this student does not read, bought for the other rows of the table.
        other_amount_micro: Price of the other queries.
    """

    images: int
    texts: int
    amount_micro: int
    currency: str
    test_images: int = 0
    published_queries: int | None = None
    other_queries: int = 0
    other_amount_micro: int = 0


@dataclass(frozen=True, slots=True)
class LocalAnswers:
    """What a local teacher answered for the exported student: no query, but as many as a vendor would have billed.

    Attributes:
        images: Views that the teacher was shown; online, each time anew.
        texts: Class texts.
        online: Whether it was shown fresh views at every step.
    """

    images: int
    texts: int
    online: bool


@dataclass(frozen=True, slots=True)
class Bill:
    """What the exported student's answers cost.

    Attributes:
        purchase: Queries and money; `None` with a local teacher.
        local: Answers of a local teacher; `None` with a vendor.
    """

    purchase: Purchase | None = None
    local: LocalAnswers | None = None


@dataclass(frozen=True, slots=True)
class SharedPurchase:
    """The one purchase that all runs of a sweep share.

    Attributes:
        images: Distinct image queries, of all domains that are a source of some run.
        texts: Distinct text queries.
        amount_micro: What was paid for them, whenever that was.
        currency: Currency of the amount.
    """

    images: int
    texts: int
    amount_micro: int
    currency: str


@dataclass(frozen=True, slots=True)
class SweepBill:
    """What a sweep's answers cost.

    Attributes:
        purchase: `None` with a local teacher.
        queries: Queries that each method's students were trained with, by the method's name.
    """

    purchase: SharedPurchase | None
    queries: Mapping[str, int]


def cost_text(purchase: Purchase | None, local: LocalAnswers | None) -> str:
    """Write the cost in sentences."""
    if local is not None:
        return _local_text(local)
    if purchase is None:
        return "Nothing was bought."
    queries = purchase.images + purchase.texts
    lines = [
        f"The student was trained with {queries:,} queries ({purchase.images:,} images, {purchase.texts:,} texts), "
        f"{format_micro(purchase.amount_micro, purchase.currency)} in all. Their embeddings are in the cache and cost "
        "nothing when they are used again."
        if queries
        else "The student was trained without any query."
    ]
    if purchase.published_queries:
        lines.append(
            "The published loop asks the teacher about every image of every step: "
            f"{purchase.published_queries:,} queries for this run, "
            f"{purchase.published_queries / max(1, queries):,.0f} times as many."
        )
    if purchase.other_queries:
        lines.append(
            f"For the other rows of the table, {purchase.other_queries:,} more queries were bought, "
            f"{format_micro(purchase.other_amount_micro, purchase.currency)} in all: this student reads none of them."
        )
    if purchase.test_images:
        lines.append(
            f"For the teacher's row alone, {purchase.test_images:,} test images were asked about as well: "
            "no student was trained or selected on them."
        )
    return " ".join(lines)


def _local_text(local: LocalAnswers) -> str:
    how = "every view of every step, drawn anew" if local.online else "each stored view once"
    return (
        f"The teacher is local: nothing was bought. It was shown {how}: {local.images:,} views and {local.texts:,} "
        f"texts, which a vendor would have billed as {local.images + local.texts:,} queries."
    )
