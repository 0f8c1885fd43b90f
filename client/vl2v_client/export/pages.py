"""What the pages of all reports share: tables, quoted names, the cost in sentences, and the writing of the files."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import CacheError
from vl2v_client.core.progress import format_micro
from vl2v_contract.texts import printable


@dataclass(frozen=True, slots=True)
class SharedPurchase:
    """What embeddings cost. All runs of a sweep share one purchase, of every domain that is a source of some run.

    The same for a first run, a resumed one and one that found everything in the cache: each query is paid once.

    Attributes:
        images: Distinct image queries.
        texts: Distinct text queries.
        amount_micro: Price of them, in micro-units, whenever it was paid.
        currency: Currency of the amount.
    """

    images: int
    texts: int
    amount_micro: int
    currency: str


@dataclass(frozen=True, slots=True)
class Purchase(SharedPurchase):
    """What the embeddings cost that the exported student was trained with.

    Attributes:
        test_images: Queries beside them, on test images, for the teacher's row of the table alone.
        published_queries: What the published loop would have asked for the same student, `methods.online_queries`.
        other_queries: Queries that this student does not read, bought for the other rows of the table.
        other_amount_micro: Price of the other queries.
    """

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


Bill = Purchase | LocalAnswers  # what the exported student's answers cost

SweepBill = tuple[SharedPurchase | None, Mapping[str, int]]
"""What a sweep's answers cost, nothing with a local teacher; and how many queries each method's students read."""


def cost_text(purchase: Purchase | None, local: LocalAnswers | None) -> str:
    """Write the cost in sentences."""
    if local is not None:
        how = "every view of every step, drawn anew" if local.online else "each stored view once"
        return (
            f"The teacher is local: nothing was bought. It was shown {how}: {local.images:,} views and {local.texts:,} "
            f"texts, which a vendor would have billed as {local.images + local.texts:,} queries."
        )
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


_MARKUP = re.compile(r"[\\`*\[\]<>&~]|(?<![^\W_])_|_(?![^\W_])")
"""What makes links, images, HTML, code and emphasis; an underscore within a word makes nothing."""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose other columns are figures; a name may hold a bar."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, marks, *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


def quoted(text: str) -> str:
    """Return a text from outside, such as the name of a class, as Markdown shows it letter by letter."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def percent(share: float | None) -> str:
    """Return `0.123` is `12.3 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"


def write_pages(folder: Path, markdown: str, record: Mapping[str, Any]) -> None:
    """Write `report.md` and `report.json`.

    Raises:
        CacheError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(markdown, encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CacheError(f"{folder} cannot be written ({error.strerror}): make room, then run again") from error
