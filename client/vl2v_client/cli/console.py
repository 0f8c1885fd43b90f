"""The way of every text to the terminal or a table: whoever wrote it, it is shown letter by letter.

Vendors, data sets and students hand over texts of their own. No markup, link, emoji code or control character in them
takes effect. JSON, for machines, escapes what does not print by itself.
"""

import csv
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from vl2v_contract.texts import printable

_WHOLE_LINES = 10_000  # columns, where no terminal ends a line


class PlainConsole(Console):
    """A console without markup; styles are set by `Text` and by tables, never by a text.

    Lines end where the terminal or `COLUMNS` says. In a file or a pipe they are whole.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not (self.is_terminal or "COLUMNS" in os.environ):
            self.width = _WHOLE_LINES

    def print_words(self, text: str, *, label: str = "") -> None:
        """Print sentences; on a terminal, lines end between words, and a path or command stays whole.

        Further lines are indented, so that none passes for another message.
        """
        lines = f"{label}{text}".split("\n")
        if self.is_terminal:
            wrap = textwrap.TextWrapper(
                self.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
            lines = list(map(wrap.fill, lines))
        told = Text("\n".join(lines))
        told.stylize("bold red", 0, len(label))
        self.print(told, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich lays it out, a line end in it written out as well."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return all that is printed, Markdown and progress too; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, keep="\n"), segment.style)


STDERR = PlainConsole(stderr=True)


def show_error(label: str, message: str) -> None:
    """Print an error on standard error."""
    STDERR.print_words(" " + "\n  ".join(map(printable, message.split("\n"))), label=f"{label}:")


def show_notice(sentence: str) -> None:
    """Show a sentence on standard error."""
    STDERR.print_words(printable(sentence))


def show(document: Any, people: RenderableType, *, as_json: bool) -> None:
    """Show a result on standard output: as one line of JSON, or what is for people."""
    if as_json:
        write_json(document)
    else:
        PlainConsole().print(people)


def plain_table(*headings: Column | str, rows: Iterable[Sequence[str]] = ()) -> Table:
    """Return a table without lines."""
    table = Table(*headings, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def stacked(*tables: RenderableType) -> Group:
    """Return tables one below the other, with a line between them."""
    return Group(*[part for table in tables for part in ("", table)][1:])


def csv_writer() -> Callable[[Sequence[object]], None]:
    """Return what writes rows of CSV to standard output."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    return lambda row: writer.writerow([printable(str(cell)) for cell in row])


def write_json(value: Any) -> None:
    """Write one line of JSON to standard output."""
    json_writer()(value)


def json_writer() -> Callable[[Any], None]:
    """Return what writes lines of JSON to standard output."""
    output = sys.stdout

    def write(value: Any) -> None:
        output.write(json.dumps(value) + "\n")

    return write
