"""Tables as HTML, for notebooks: every text is shown letter by letter, whoever wrote it."""

from collections.abc import Iterable, Sequence
from html import escape

from vl2v_contract.texts import printable


def html_text(text: str) -> str:
    """Return a text as HTML shows it; what steers is written out."""
    return escape(printable(text))


def html_table(caption: str, rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table of texts."""
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<table><caption>{html_text(caption)}</caption>{top}<tbody>{body}</tbody></table>"
