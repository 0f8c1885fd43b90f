"""The file of the cache: its tables, and one connection for all threads, beside other processes on the same file."""

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import CacheError

SCHEMA_VERSION = 3
APPLICATION_ID = 0x564C3256  # "VL2V"

CHUNK = 500  # keys per statement, below SQLite's oldest limit on parameters

_MOVE = "or name another file with purchase.cache"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and run the same command again: nothing paid is lost",
    sqlite3.SQLITE_BUSY: "another process holds it; wait for that process to end and run the same command again",
    sqlite3.SQLITE_LOCKED: "another process holds it; wait for that process to end and run the same command again",
    sqlite3.SQLITE_READONLY: f"it, or its folder, may not be written; change the permissions, {_MOVE}",
    sqlite3.SQLITE_PERM: f"it may not be opened; change the permissions, {_MOVE}",
    sqlite3.SQLITE_CANTOPEN: f"it cannot be opened; check the path and its permissions, {_MOVE}",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; check it (a full disk shows like this too) and run again",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away, restore a copy, then recover what was paid with an audit",
    sqlite3.SQLITE_NOTADB: f"it is not a cache of vl2v; {_MOVE}",
}

_TABLES = """
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per ledger ever met, trusted on first use. `first_key` never changes.
CREATE TABLE vendors (
    ledger_id TEXT PRIMARY KEY,
    first_key TEXT NOT NULL,
    keys_json TEXT NOT NULL,
    images_per_second REAL
) STRICT, WITHOUT ROWID;

-- The end of each account's chain as last audited: a later statement must extend it. Up to `accepted_seq` the user has
-- accepted what other software bought with this cache's API keys.
CREATE TABLE audited_heads (
    ledger_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    entry_hash TEXT NOT NULL,
    accepted_seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ledger_id, account_id)
) STRICT, WITHOUT ROWID;

-- The model that each URL showed last, under the name it was asked for ('' is the vendor's default).
CREATE TABLE teachers (
    url TEXT NOT NULL,
    asked_for TEXT NOT NULL,
    teacher_json TEXT NOT NULL,
    PRIMARY KEY (url, asked_for)
) STRICT, WITHOUT ROWID;

CREATE TABLE agreed_prices (
    ledger_id TEXT NOT NULL,
    price_id INTEGER NOT NULL,
    unit_price_micro INTEGER NOT NULL,
    currency TEXT NOT NULL,
    PRIMARY KEY (ledger_id, price_id, unit_price_micro, currency)
) STRICT, WITHOUT ROWID;

-- What one command may spend; `held` counts its sent and paid items, at the agreed price. Purchases of one task share
-- their caps.
CREATE TABLE purchases (
    id INTEGER PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    max_units INTEGER,
    max_amount_micro INTEGER,
    held_units INTEGER NOT NULL DEFAULT 0 CHECK (held_units <= max_units),
    held_amount_micro INTEGER NOT NULL DEFAULT 0 CHECK (held_amount_micro <= max_amount_micro),
    started_at INTEGER NOT NULL,
    account_id TEXT,
    task TEXT
) STRICT;

-- Every item key ever made for sending. `sent` is written and synced before the request leaves. A sent item is expired
-- once the vendor has said that it charged the item and no longer keeps the vector.
CREATE TABLE intents (
    item_key BLOB PRIMARY KEY,
    cache_key BLOB NOT NULL UNIQUE,
    ledger_id TEXT NOT NULL,
    modality TEXT NOT NULL,
    model_id TEXT NOT NULL,
    weights_sha TEXT NOT NULL,
    content_sha TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'sent', 'paid')),
    attempts INTEGER NOT NULL,
    unit_price_micro INTEGER NOT NULL,
    purchase_id INTEGER NOT NULL REFERENCES purchases (id),
    account_id TEXT,
    seq INTEGER,
    result_sha TEXT,
    recompute_json TEXT,
    is_expired INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'paid') = (seq IS NOT NULL AND account_id IS NOT NULL AND result_sha IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX intents_open ON intents (ledger_id, state) WHERE state <> 'paid';
CREATE INDEX intents_of_entry ON intents (ledger_id, account_id, seq);

CREATE TABLE embeddings (
    cache_key BLOB PRIMARY KEY,
    vector BLOB NOT NULL
) STRICT;

CREATE TABLE receipts (
    ledger_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    api_key_id TEXT,
    units INTEGER NOT NULL,
    unit_price_micro INTEGER NOT NULL,
    amount_micro INTEGER NOT NULL,
    currency TEXT NOT NULL,
    entry_hash TEXT NOT NULL,
    receipt_json TEXT NOT NULL,
    PRIMARY KEY (ledger_id, account_id, seq)
) STRICT, WITHOUT ROWID;

-- Memos: they spare work and may be deleted at any time.
CREATE TABLE file_contents (
    path TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,  -- the inode's change, if that is later
    file_sha TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE view_contents (
    view_key BLOB PRIMARY KEY,
    content_sha BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""


_CHANGES = {
    2: (
        "intents ADD COLUMN is_expired INTEGER NOT NULL DEFAULT 0",
        "purchases ADD COLUMN account_id TEXT",
        "purchases ADD COLUMN task TEXT",
    ),
    3: ("audited_heads ADD COLUMN accepted_seq INTEGER NOT NULL DEFAULT 0",),
}
"""What each version of the schema changed; if another process was faster, nothing is left to do."""


class Database:
    """Transactions over the cache file. Thread-safe: one statement or transaction at a time.

    Raises:
        CacheError: The file cannot be opened; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            with naming_faults(path):
                self._connection = open_connection(path)
        except OSError as error:
            what = f"the cache {path} cannot be made: {error.strerror}"
            raise CacheError(f"{what}; name another with purchase.cache") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield one transaction, on disk when the block has ended; nothing of it remains if the block raises."""
        with self._lock, naming_faults(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def write_all(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for each of the rows, in one transaction."""
        with self.write() as connection:
            connection.executemany(statement, rows)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, naming_faults(self.path):
            return self._connection.execute(query, values).fetchall()

    def rows_of(self, query: str, keys: Iterable[Any], values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a query with an `IN ({keys})` clause, asked in chunks; `values` come before the keys."""
        wanted = list(keys)
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            yield from self.rows(query.format(keys=",".join("?" * len(chunk))), [*values, *chunk])


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Turn every SQLite error of the block into a `CacheError` about `path`.

    Raises:
        CacheError: SQLite failed.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
        remedy = _REMEDIES.get(code, "run the same command again")
        raise CacheError(f"{path}: {error}: {remedy}") from error


def open_connection(path: Path) -> sqlite3.Connection:
    """Open the cache, making it if it is not there; durable to the last commit, shared with other processes.

    Raises:
        CacheError: The file is something else, or of a newer version.
        sqlite3.Error: SQLite could not open or write it.
        OSError: The folder or file cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # The item secret lives inside, so nobody else may read it, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(
        path, timeout=30.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    query = "SELECT user_version, application_id, EXISTS (SELECT * FROM sqlite_master)"
    facts = connection.execute(f"{query} FROM pragma_user_version, pragma_application_id")
    version, application_id, has_tables = facts.fetchone()
    if version > SCHEMA_VERSION:
        raise CacheError(f"the cache {path} was made by a newer vl2v (schema {version}); upgrade vl2v to use it")
    if (version or has_tables) and application_id != APPLICATION_ID:
        raise CacheError(f"{path} is a database, but not a cache of vl2v; name another file with purchase.cache")
    if version == 0:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if version < SCHEMA_VERSION:
        _migrate(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in _TABLES.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO secrets VALUES ('item', ?)", (secrets.token_bytes(32),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    else:
        for change in (change for since, changes in _CHANGES.items() if version < since for change in changes):
            connection.execute(f"ALTER TABLE {change}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
