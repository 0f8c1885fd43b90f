"""What the staff's commands work on: the ledger's database, beside a running server or without one."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from vl2v_contract.texts import printable
from vl2v_vendor.domain.errors import NotFound
from vl2v_vendor.domain.ports import Signer
from vl2v_vendor.host.lock_file import in_use
from vl2v_vendor.host.system_clock import SystemClock
from vl2v_vendor.keys.published_heads import HeadsFile, PublishedHead
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import STAFF_LOCK_WAIT_SECONDS, open_engine
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.restoration import require_published
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.settings import Settings, load_settings

DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="sqlite:///FILE or postgresql://USER@HOST/NAME.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _named(request_id: str | None) -> str | None:
    if request_id == "":
        raise typer.BadParameter("an empty name names nothing, and the act would be done again: leave it out")
    return request_id


RequestIdOption = Annotated[
    str | None,
    typer.Option("--request-id", help="A name for this act; the same act under it is done once.", callback=_named),
]

_T = TypeVar("_T")

_WIDE_COLUMNS = 200
_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Books:
    """The open database.

    Attributes:
        actor: Actor that the log names, for acts that do not go through `accounts`.
    """

    settings: Settings
    engine: Engine
    accounts: SqlAccounts
    clock: SystemClock
    signer: Signer
    actor: str

    @asynccontextmanager
    async def audit(self) -> AsyncIterator[Audit]:
        """Statements and summaries, as the server gives them."""
        retention_seconds = self.settings.retention_days * _SECONDS_PER_DAY
        ledger = SqlLedger(self.engine, signer=self.signer, clock=self.clock, retention_seconds=retention_seconds)
        await ledger.start()
        try:
            yield Audit(ledger, self.signer, self.clock)
        finally:
            await ledger.close()


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
        upgrade(engine)
        if posts:
            require_published(engine, _published_heads(engine, settings))
        clock = SystemClock()
        signer = load_or_create_secrets(settings.secrets_path).signer()
        actor = f"cli:{_user_name()}"
        accounts = SqlAccounts(engine, signer=signer, clock=clock, actor=actor)
        yield Books(settings, engine, accounts, clock, signer, actor)


def _published_heads(engine: Engine, settings: Settings) -> Mapping[str, PublishedHead]:
    with engine.connect() as connection:
        return HeadsFile(settings.published_heads_path, read_ledger_id(connection)).read()


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print a line for people, on standard output or standard error; what does not print in it is written out."""
    typer.echo(printable(text), err=err)


def show_json(value: Any) -> None:
    """Print for a machine; JSON writes out by itself what does not print."""
    typer.echo(json.dumps(value, indent=2, default=_jsonable))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print for people; whole cells even where the terminal is narrow or absent, letter by letter as they are."""
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
    """`2026-01-01 00:00:00Z`, or None."""
    if microseconds is None:
        return None
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC):%Y-%m-%d %H:%M:%SZ}"


def _user_name() -> str:
    """Return the operating system's user; its number where a container gives it no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _jsonable(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
