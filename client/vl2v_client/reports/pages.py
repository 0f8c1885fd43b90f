"""What the pages of all reports share: tables, quoted names, the cost in sentences, and the writing of the files."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v_client.core.files import write_whole
from vl2v_client.core.progress import format_micro
from vl2v_client.evaluation.intervals import Estimate
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


MAX_REPORT_BYTES = 64 * 2**20  # of `report.json`: a confusion of 2,000 classes takes 40 MB
MINUS = "\u2212"

Bill = Purchase | LocalAnswers  # what the exported student's answers cost

SweepBill = tuple[SharedPurchase | None, Mapping[str, int]]
"""What a sweep's answers cost, nothing with a local teacher; and how many queries each method's students read."""


def cost_text(purchase: Purchase | None, local: LocalAnswers | None) -> str:
    """Write the cost in sentences."""
    if local is not None:
        how = "every view of every step, drawn anew" if local.online else "each stored view once"
        return (
            f"The teacher is local: nothing was bought. It was shown {how}: {counted(local.images, 'view')} and "
            f"{counted(local.texts, 'text')}, which a vendor would have billed as "
            f"{counted(local.images + local.texts, 'query')}."
        )
    if purchase is None:
        return "Nothing was bought."
    queries = purchase.images + purchase.texts
    lines = [
        f"The student was trained with {asked(purchase)}, "
        f"{format_micro(purchase.amount_micro, purchase.currency)} in all. Their embeddings are in the cache and cost "
        "nothing when they are used again."
        if queries
        else "The student was trained without any query."
    ]
    if purchase.published_queries:
        lines.append(
            "The published loop asks the teacher about every image of every step: "
            f"{counted(purchase.published_queries, 'query')} for this run"
            f"{times_as_many(purchase.published_queries, queries)}."
        )
    if purchase.other_queries:
        lines.append(
            f"For the other rows of the table, the run bought {counted(purchase.other_queries, 'more query')}, "
            f"{format_micro(purchase.other_amount_micro, purchase.currency)} in all: this student reads none of them."
        )
    if purchase.test_images:
        lines.append(
            f"For the teacher's row alone, it asked about {counted(purchase.test_images, 'test image')} as well: "
            "no student was trained or selected on them."
        )
    return " ".join(lines)


def asked(bought: SharedPurchase) -> str:
    """Return `4 queries (3 images, 1 text)`."""
    queries = counted(bought.images + bought.texts, "query")
    return f"{queries} ({counted(bought.images, 'image')}, {counted(bought.texts, 'text')})"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 query` and `1,600 queries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def times_as_many(more: int, queries: int) -> str:
    """Return how `more` compares with the queries that were bought, to go on a sentence; nothing below twice as many.

    A run of few steps asks the published loop's teacher less than a purchase of whole views, and a run that reads no
    query has nothing to compare.
    """
    if not queries or more < 2 * queries:
        return f", fewer than the {queries:,} that it bought" if queries > more else ""
    return f", {more / queries:,.0f} times as many"


_MARKUP = re.compile(r"[\\`*\[\]<>&~]|(?<![^\W_])_|_(?![^\W_])")
"""What makes links, images, HTML, code and emphasis; an underscore within a word makes nothing."""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose other columns are figures; a name may hold a bar."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, marks, *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


def confusion_table(class_names: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix `[C, C]` as a table; rows are labels."""
    lines = []
    for label, (name, counts) in enumerate(zip(class_names, confusion, strict=True)):
        recall = f"{counts[label] / sum(counts):.0%}" if any(counts) else "-"
        lines.append([name, *(str(count or ".") for count in counts), recall])
    return "Rows are labels, columns predictions.\n\n" + table(["", *class_names, "recall"], lines)


def quoted(text: str) -> str:
    """Return a text from outside, such as the name of a class, as Markdown shows it letter by letter."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def points(difference: float) -> str:
    """Return `0.063` as `+6.3 points`."""
    return f"{100 * difference:+.1f} points"


def signed_range(low: float, high: float) -> str:
    """Return `-0.005` and `0.063` as a range of points, with the sign that typography has for less."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}".replace("-", MINUS)


def interval(share: Estimate) -> str:
    """Return the interval of an accuracy, such as `12.3 % to 23.4 %`."""
    return f"{percent(share.low)} to {percent(share.high)}"


def percent(share: float | None) -> str:
    """Return `0.123` is `12.3 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"


def write_pages(folder: Path, markdown: str, record: Mapping[str, Any]) -> None:
    """Write `report.md` and `report.json`.

    Raises:
        CacheError: The folder cannot be written.
    """
    write_whole(folder / "report.md", markdown)
    write_whole(folder / "report.json", json.dumps(record, indent=2) + "\n")
