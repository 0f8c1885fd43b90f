"""Pieces of Markdown that reports share."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are figures."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, marks, *lines])


def percent(share: float | None) -> str:
    """`0.123` is `12.3 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"
