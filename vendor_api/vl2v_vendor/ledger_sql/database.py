"""Opening the database: the same durability and locking rules on every connection.

SQLite runs in WAL mode with `synchronous=FULL`. The driver's own transaction handling is off: a "begin" event emits
`BEGIN IMMEDIATE` for writers, since a deferred transaction that reads and then writes fails at once with "database is
locked", whatever the busy timeout.

PostgreSQL runs at READ COMMITTED; the charge takes row locks. Its driver's transaction handling is off too: the event
sends `BEGIN` and the transaction's limits in one round trip. No setting and no lock is kept in a session, and behind a
pooler such as PgBouncer no prepared statement either, so that each transaction may run in another of its sessions.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import OperationalError
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    cast,
    create_engine,
    event,
    extract,
    func,
    literal_column,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.domain.ports import Clock

if TYPE_CHECKING:
    from psycopg import Connection as PostgresqlConnection

LOCK_WAIT_SECONDS = 0.8
"""How long a server's statement waits for another writer: the ledger must refuse within 2 s."""

STAFF_LOCK_WAIT_SECONDS = 30.0
"""How long a command line tool waits beside a busy server, whose groups follow each other closely."""

_WRITER_OPTION = "vl2v_writer"
_SNAPSHOT_OPTION = "vl2v_snapshot"
_LIMITS_OPTION = "vl2v_limits"


class DatabaseError(VendorError):
    """The database URL is of no use, or the database behind it does not keep what the ledger relies on."""


def open_engine(database_url: str, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> Engine:
    """Return an engine for `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; connects to nothing yet.

    The parent folder of a SQLite file is made. Folder and file are their owner's alone if they are new.

    Raises:
        DatabaseError: Not a URL, or of another kind of database.
    """
    try:
        url = make_url(database_url)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseError("the database URL cannot be read; it looks like `sqlite:////srv/vl2v/vendor.db`") from error
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseError(f"no ledger on `{backend}`; use `sqlite` or `postgresql`")
    if backend == "postgresql":
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            execution_options={
                _LIMITS_OPTION: {"lock_timeout": str(int(lock_wait_seconds * 1000)), "synchronous_commit": "on"}
            },
            connect_args={
                "autocommit": True,
                "connect_timeout": 5,
                # A server that vanished without a word is given up, so that the writer connects again.
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 5000,
            },
            pool_pre_ping=True,
            pool_timeout=lock_wait_seconds,
        )
        event.listen(engine, "connect", _configure_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DatabaseError("a ledger needs a file: use a database URL like `sqlite:////srv/vl2v/vendor.db`")
    file = Path(url.database).expanduser()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(
        url.set(database=str(file)),
        connect_args={"timeout": lock_wait_seconds, "isolation_level": None},
        pool_timeout=lock_wait_seconds,
    )
    event.listen(engine, "do_connect", _make_private)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine) -> Engine:
    """Return the same engine and pool, whose transactions take the write lock at once."""
    return engine.execution_options(**{_WRITER_OPTION: True})


def with_limits(engine: Engine, **limits: str) -> Engine:
    """Return the same engine and pool, whose transactions have further limits, which SQLite has none of."""
    if not is_postgresql(engine):
        return engine
    return engine.execution_options(**{_LIMITS_OPTION: engine.get_execution_options()[_LIMITS_OPTION] | limits})


def begin_snapshot(connection: Connection) -> None:
    """Make the connection's next transaction see one state of the database from its first statement on."""
    connection.execution_options(**{_SNAPSHOT_OPTION: True})


def verify_limits(connection: Connection) -> None:
    """Check inside a transaction that its limits are in force.

    Raises:
        DatabaseError: Names the setting, what it is and what it should be, and the remedy.
    """
    if not is_postgresql(connection):
        return
    limits = connection.get_execution_options()[_LIMITS_OPTION]
    query = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    found = {row.name: row.setting for row in connection.execute(query, {"names": list(limits)})}
    for name, value in limits.items():
        if found.get(name) != value:
            raise DatabaseError(
                f"`SET LOCAL {name} = {value}` has no effect: the setting is {found.get(name)} in the same "
                "transaction, so a request could be charged after it was refused; connect to PostgreSQL itself or "
                "through PgBouncer with `pool_mode = transaction`"
            )


def is_postgresql(engine: Engine | Connection) -> bool:
    """Return whether row locks, advisory locks and a clock of its own are there."""
    return engine.dialect.name == "postgresql"


def checkpoint(engine: Engine) -> None:
    """Copy what was committed into the database's file: it stays though SQLite's write-ahead log is lost."""
    if not is_postgresql(engine):
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


def identify_files(engine: Engine) -> list[tuple[int, int]]:
    """Return device and inode of a SQLite ledger's file and of its write-ahead log, as far as they are there."""
    files = [] if is_postgresql(engine) else [Path(f"{engine.url.database}{end}") for end in ("", "-wal")]
    return [(file.stat().st_dev, file.stat().st_ino) for file in files if file.exists()]


def database_now(connection: Connection, clock: Clock) -> int:
    """Read the database's clock, in microseconds: replicas share PostgreSQL's, SQLite's is the process's own."""
    if not is_postgresql(connection):
        return clock.now()
    return int(connection.execute(select(database_clock())).scalar_one())


def database_clock() -> ColumnElement[int]:
    """Return PostgreSQL's clock, in microseconds, as an expression."""
    return cast(extract("epoch", func.clock_timestamp()) * literal_column("1000000"), BigInteger)


def _make_private(_dialect: object, _record: object, arguments: list[str], _options: object) -> None:
    """Make a new file, whose log gets the same mode; to close one that is open would end SQLite's locks."""
    with suppress(FileExistsError):
        os.close(os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _configure_sqlite(connection: SqliteConnection, _record: Any) -> None:
    deadline = monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except OperationalError:  # the very first switch of a new file does not always honour the busy timeout
            if monotonic() > deadline:
                raise
            sleep(0.01)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # REPLACE deletes without firing the append-only triggers unless triggers are recursive.
    connection.execute("PRAGMA recursive_triggers=ON")


def _configure_postgresql(connection: PostgresqlConnection, _record: Any) -> None:
    """Prepare statements only where the session is the server's own, which a pooler's process id gives away."""
    own_pid = connection.execute("SELECT pg_backend_pid()").fetchone()
    if own_pid != (connection.info.backend_pid,):
        connection.prepare_threshold = None


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ" if options.get(_SNAPSHOT_OPTION, False) else "BEGIN"
    limits = [f"SET LOCAL {name} = {value}" for name, value in options[_LIMITS_OPTION].items()]
    connection.exec_driver_sql("; ".join((begin, *limits)))


def _begin_sqlite(connection: Connection) -> None:
    writer = connection.get_execution_options().get(_WRITER_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
