"""Pieces of Markdown that reports share."""

from __future__ import annotations

from collections.abc import Sequence

_BAR = r"\|"
"""A bar that ends no cell."""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are figures; a name may hold a bar."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |" for cells in [header, marks, *lines]
    )


def percent(share: float | None) -> str:
    """`0.123` is `12.3 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"
