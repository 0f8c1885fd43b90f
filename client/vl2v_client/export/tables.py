"""Pieces of Markdown that reports share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vl2v_contract.texts import printable

_MARKUP = re.compile(r"[\\`*\[\]<>&~]|(?<![^\W_])_|_(?![^\W_])")
"""What makes links, images, HTML, code and emphasis; an underscore within a word makes nothing."""

_BAR = r"\|"
"""A bar that ends no cell."""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose other columns are figures; a name may hold a bar."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |" for cells in [header, marks, *lines]
    )


def quoted(text: str) -> str:
    """Return a text from outside, such as the name of a class, as Markdown shows it letter by letter."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def percent(share: float | None) -> str:
    """Return `0.123` is `12.3 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"
