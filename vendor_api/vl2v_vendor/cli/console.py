"""What the commands share: options, and the way of every text to the terminal."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, TypeVar, cast, get_args

from cyclopts import Group, Parameter, Token, convert

from vl2v_contract.texts import printable

_T = TypeVar("_T")

_WIDE_COLUMNS = 200

LEDGER = Group("Ledger", sort_key=1)
OUTPUT = Group("Output", sort_key=2)


def _check_name(_type: type, request_id: str | None) -> None:
    if request_id == "":
        raise ValueError("an empty name names nothing, and the act would be done again: leave it out")


DatabaseOption = Annotated[
    str | None, Parameter(name="--database", group=LEDGER, help="sqlite:///FILE or postgresql://USER@HOST/NAME.")
]
RequestIdOption = Annotated[
    str | None,
    Parameter(
        name="--request-id",
        group=LEDGER,
        validator=_check_name,
        help="A name for this act; the same act under it is done once.",
    ),
]
JsonOption = Annotated[
    bool, Parameter(name="--json", group=OUTPUT, show_default=False, help="Print JSON instead of a table.")
]


def convert_strictly(wanted: Any, tokens: Sequence[Token]) -> Any:
    """Convert as cyclopts does, but round no fraction to a whole number.

    Raises:
        ValueError: A whole number is wanted, and the word is none.
    """
    if int in (wanted, *get_args(wanted)):
        for token in tokens:
            try:
                int(token.value)
            except ValueError:
                raise ValueError(f"{token.value!r} is not a whole number") from None
    return convert(wanted, tokens)


def installed_version() -> str:
    """Return the distribution's version, or `unknown` when the code runs from a checkout that was never installed."""
    try:
        return importlib.metadata.version("vl2v")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print a line for people, on standard output or standard error; what does not print in it is written out."""
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{printable(text)}\n")
    stream.flush()


def show_json(value: Any) -> None:
    """Print for a machine; JSON writes out by itself what does not print."""
    sys.stdout.write(f"{json.dumps(value, indent=2, default=_jsonable)}\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print for people; whole cells even where the terminal is narrow or absent, letter by letter as they are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else printable(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _WIDE_COLUMNS
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def show_items(
    items: Sequence[_T], columns: Mapping[str, str | Callable[[_T], object]], *, as_json: bool = False
) -> None:
    """Print dataclasses: whole as JSON, or a table of columns, each an attribute or a function of an item."""
    if as_json:
        show_json([asdict(cast("Any", item)) for item in items])
        return
    cells = [attrgetter(cell) if isinstance(cell, str) else cell for cell in columns.values()]
    show_table(list(columns), [[cell(item) for cell in cells] for item in items])


def show_time(microseconds: int | None) -> str | None:
    """Return `2026-01-01 00:00:00Z`, or None."""
    if microseconds is None:
        return None
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC):%Y-%m-%d %H:%M:%SZ}"


def _jsonable(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
