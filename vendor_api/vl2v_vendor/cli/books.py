"""What the staff's commands work on: the ledger's database, beside a running server or without one.

SQLAlchemy and what rests on it are imported when the database is opened: `--help` needs none of them.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vl2v_vendor.domain.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from vl2v_vendor.domain.ports import Signer
    from vl2v_vendor.host import SystemClock
    from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
    from vl2v_vendor.service.audit import Audit
    from vl2v_vendor.settings import Settings

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
        """Open statements and summaries, as the server gives them."""
        from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
        from vl2v_vendor.service.audit import Audit

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
    from vl2v_vendor.host import SystemClock, in_use
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.keys.secrets import load_or_create_secrets
    from vl2v_vendor.ledger_sql.database import STAFF_LOCK_WAIT_SECONDS, open_engine
    from vl2v_vendor.ledger_sql.migrations import upgrade
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
        upgrade(engine)
        if posts:
            with engine.connect() as connection:
                heads = HeadsFile(settings.published_heads_path, read_ledger_id(connection)).read()
            require_published(engine, heads)
        clock = SystemClock()
        signer = load_or_create_secrets(settings.secrets_path).signer()
        actor = f"cli:{_user_name()}"
        accounts = SqlAccounts(engine, signer=signer, clock=clock, actor=actor)
        yield Books(settings, engine, accounts, clock, signer, actor)


def _user_name() -> str:
    """Return the operating system's user; its number where a container gives it no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
