"""What the commands share: options, the way of every text to the terminal, and the ledger's database.

The database is that of a running server or of none. SQLAlchemy and what rests on it are imported when it is opened:
`--help` needs none of them.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args

from cyclopts import Group, Parameter, Token, convert

from vl2v_contract.texts import printable
from vl2v_vendor.domain.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from vl2v_vendor.host import SystemClock
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
    from vl2v_vendor.settings import Settings


_T = TypeVar("_T")

Columns: TypeAlias = Mapping[str, str | Callable[[_T], object]]
"""Heading: an attribute, or a function of an item."""

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


def show(document: Any, people: str | Callable[[], None], *, as_json: bool) -> None:
    """Show a result: as JSON, or by a line or a function that is for people."""
    if as_json:  # sets as lists; what does not print is written out by JSON itself
        sys.stdout.write(f"{json.dumps(document, indent=2, default=sorted)}\n")
    elif isinstance(people, str):
        print_line(people)
    else:
        people()


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


def show_items(items: Sequence[_T], columns: Columns[_T]) -> None:
    """Print a table of columns, each an attribute or a function of an item."""
    cells = [attrgetter(cell) if isinstance(cell, str) else cell for cell in columns.values()]
    show_table(list(columns), [[cell(item) for cell in cells] for item in items])


def show_time(microseconds: int | None) -> str | None:
    """Return `2026-01-01 00:00:00Z`, or None."""
    if microseconds is None:
        return None
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC):%Y-%m-%d %H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Books:
    """The open database."""

    settings: Settings
    engine: Engine
    accounts: SqlAccounts
    clock: SystemClock
    heads: HeadsFile


@contextmanager
def open_books(database: str | None, *, makes: bool = False, posts: bool = False) -> Iterator[Books]:
    """Open the database that the option or the settings name.

    Args:
        database: URL of the database; None is that of the settings.
        makes: Whether to make it if it is new; a command that only looks would call nothing clean.
        posts: Whether the command adds an entry to an account, so the ledger must hold all that was signed.

    Raises:
        VendorError: It cannot be opened; the message names the remedy.
    """
    from vl2v_vendor.host import SystemClock, in_use
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.keys.secrets import load_or_create_secrets
    from vl2v_vendor.ledger_sql.database import STAFF_LOCK_WAIT_SECONDS, open_engine
    from vl2v_vendor.ledger_sql.migrations import current_revision, upgrade
    from vl2v_vendor.ledger_sql.reading import read_ledger_id
    from vl2v_vendor.ledger_sql.restoration import require_published
    from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
    from vl2v_vendor.settings import load_settings

    settings = load_settings(database_url=database)
    engine = open_engine(settings.database, lock_wait_seconds=STAFF_LOCK_WAIT_SECONDS)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        if engine.dialect.name == "sqlite":
            file = Path(engine.url.database or "")
            if not (makes or file.exists()):
                raise NotFound(
                    f"there is no database {file}; name it with --database, or make it by `vl2v-vendor serve`"
                )
            stack.enter_context(in_use(file))
            if not (makes or current_revision(engine)):
                raise NotFound(f"{file} holds no ledger: {file.name}-wal may be lost; restore a backup")
        upgrade(engine)
        with engine.connect() as connection:
            heads = HeadsFile(settings.published_heads_path, read_ledger_id(connection))
        if makes or posts:
            require_published(engine, heads)
        clock = SystemClock()
        signer = load_or_create_secrets(settings.secrets_path).signer()
        accounts = SqlAccounts(engine, signer=signer, clock=clock, actor=f"cli:{_user_name()}")
        yield Books(settings, engine, accounts, clock, heads)


def _user_name() -> str:
    """Return the operating system's user; its number where a container gives it no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
