"""Copies of a SQLite ledger: taken beside a selling server, and put back while none runs.

PostgreSQL has tools of its own for this, which know its write-ahead log; a refusal here names them.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.host import in_use, replace_durably, server_lock
from vl2v_vendor.keys.published_heads import Heads
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.key_publication import WrongSecrets
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.restoration import read_heads
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.tables import signing_keys

_SIDE_FILES = ("-wal", "-shm")
_LOCK_WAIT_SECONDS = 5.0


class BackupRefused(VendorError):
    """A backup cannot be taken or put back; nothing was changed."""


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """What a backup holds; `replaced` is where the database that it replaced was put, if there was one."""

    ledger_id: str
    heads: Heads
    replaced: Path | None = None


def require_sqlite(database_url: str, act: str) -> Path:
    """Return the file of a SQLite database.

    Raises:
        BackupRefused: It is PostgreSQL; names its own tools.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise BackupRefused("that is no database URL; give one like sqlite:////path/to/vendor.db") from error
    if url.get_backend_name() != "sqlite":
        raise BackupRefused(
            f"`ledger {act}` is for SQLite; back a PostgreSQL ledger up with `pg_dump`, or with `pg_basebackup` and "
            "an archived write-ahead log, and restore it with `pg_restore`; `vl2v-vendor ledger verify` checks it"
        )
    return Path(url.database or "").expanduser()


def back_up(database: Path, target: Path) -> LedgerCopy:
    """Copy one committed state of the database to `target`, beside a server that goes on selling.

    The copy is whole on disk before it gets its name, is checked, and needs no file beside it.

    Raises:
        BackupRefused: `target` exists, there is no database, or the copy is damaged.
    """
    if target.exists():
        raise BackupRefused(f"{target} exists; give a new name, a backup is never overwritten")
    if not database.is_file():
        raise BackupRefused(f"there is no database {database}; name it with --database")
    with _temporary_copy(database, target) as copy:
        _check_pages(copy)
        with _opened(copy) as engine, engine.connect() as connection:
            found = _describe(connection)
        replace_durably(copy, target)
    return found


def restore(backup: Path, database: Path, signer: SecretSigner) -> LedgerCopy:
    """Put a backup in the place of the database, which is kept beside it under a dated name.

    Raises:
        ServerAlreadyRunning: A server has the database open.
        DatabaseReplaced: A command has it open.
        BackupRefused: Not a backup of this ledger, or one that does not add up, or the database is in use.
        WrongSecrets: Signed by keys that are not those of the secrets file.
    """
    if not backup.is_file():
        raise BackupRefused(f"there is no file {backup}")
    database.parent.mkdir(parents=True, exist_ok=True)
    with server_lock(Path(f"{database}.lock")), in_use(database, alone=True), _temporary_copy(backup, database) as copy:
        _check_pages(copy)
        found = _verify(copy, backup, signer)
        _check_same_ledger(found, database)
        replaced = _move_aside(database)
        replace_durably(copy, database)
    return LedgerCopy(found.ledger_id, found.heads, replaced)


@contextmanager
def _temporary_copy(source: Path, target: Path) -> Iterator[Path]:
    """One state of `source` in a file of a temporary name in the folder of `target`, gone afterwards if still there."""
    copy = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        _copy_pages(source, copy)
        yield copy
    finally:
        for suffix in ("", *_SIDE_FILES):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _copy_pages(source: Path, copy: Path) -> None:
    """Copy all pages in one step: a copy in several would begin again after each charge of a running server."""
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reader,
            closing(sqlite3.connect(copy)) as writer,
        ):
            reader.backup(writer, pages=-1)
            writer.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BackupRefused(f"{source} cannot be copied as a SQLite database: {error}") from error


def _check_pages(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        try:
            faults = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.DatabaseError as error:  # so damaged that it cannot be checked
            faults = [str(error)]
    if faults != ["ok"]:
        raise BackupRefused(f"the copy is damaged, and with it the original: {'; '.join(faults)}")


@contextmanager
def _opened(copy: Path) -> Iterator[Engine]:
    """Open the copy as a ledger; afterwards it is one file again, as `open_engine` would not leave it."""
    engine = open_engine(f"sqlite:///{copy}")
    try:
        yield engine
    except SQLAlchemyError as error:
        raise BackupRefused(f"the copy cannot be read as a ledger ({type(error).__name__})") from error
    finally:
        engine.dispose()
        with closing(sqlite3.connect(copy)) as plain:
            plain.execute("PRAGMA journal_mode=DELETE")


def _verify(copy: Path, backup: Path, signer: SecretSigner) -> LedgerCopy:
    with closing(sqlite3.connect(copy)) as plain:
        is_ledger = plain.execute("SELECT 1 FROM sqlite_master WHERE name = 'charge_items'").fetchone()
    if is_ledger is None:
        raise BackupRefused(f"{backup} is no backup of a vl2v ledger")
    with _opened(copy) as engine:
        upgrade(engine)
        with engine.connect() as connection:
            published = set(connection.execute(select(signing_keys.c.key_id)).scalars())
            if not published or not published <= {key.key_id for key in signer.published_keys}:
                raise WrongSecrets(
                    f"{backup} was not signed by the keys in the secrets file; restore the vendor-secrets.json that "
                    "belongs to it first"
                )
            report = verify_ledger(connection)
            if not report.clean:
                first = report.problems[0]
                raise BackupRefused(
                    f"{backup} does not add up: {report.problem_count} problems, the first in {first.account_id}, "
                    f"entry {first.seq}: {first.code}, {first.detail}; restore another backup"
                )
            return _describe(connection)


def _describe(connection: Connection) -> LedgerCopy:
    return LedgerCopy(read_ledger_id(connection), read_heads(connection))


def _check_same_ledger(found: LedgerCopy, database: Path) -> None:
    """Let a database pass that cannot be read any more: the signing keys have been checked."""
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT ledger_id FROM vendor").fetchone()
    except sqlite3.Error:
        return
    if row is not None and row[0] != found.ledger_id:
        raise BackupRefused(
            f"the backup is of ledger {found.ledger_id} and {database} is ledger {row[0]}; "
            "name the right database with --database, or move this one away"
        )


def _move_aside(database: Path) -> Path | None:
    """Give the database a second, dated name; with its write-ahead log if it is too damaged to take that in."""
    if not database.exists():
        return None
    dated = database.with_name(f"{database.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if dated.exists():
        raise BackupRefused(f"{dated} exists; try again in a second")
    log, dated_log = Path(f"{database}-wal"), Path(f"{dated}-wal")
    if log.exists():
        os.link(log, dated_log)  # before anybody opens the database, and with it perhaps clears the log
    try:
        with closing(sqlite3.connect(database, timeout=_LOCK_WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # writes the log into the file
    except sqlite3.OperationalError as error:
        dated_log.unlink(missing_ok=True)
        raise BackupRefused(
            f"another program uses {database} ({error}); end it, such as a `vl2v-vendor` command, and try again"
        ) from error
    except sqlite3.DatabaseError:
        pass  # too damaged to take its log in
    else:
        dated_log.unlink(missing_ok=True)
    os.link(database, dated)
    for suffix in _SIDE_FILES:  # they must not be taken for those of the database to come
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    return dated
