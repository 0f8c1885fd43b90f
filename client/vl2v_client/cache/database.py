"""The file of the cache: one connection for all threads of this process, beside other processes on the same file.

SQLite's errors become messages that say which file, what happened and what to do. Purchases on one cache take turns by
a lock file beside it, held by the kernel, so that no crash leaves it locked: what one purchase has sent and not yet
received looks to another like something lost, which it would ask for too early, hear was never paid, and take back.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl2v_client.cache.schema import open_connection
from vl2v_client.core.errors import CacheError

CHUNK = 500
"""Keys per statement, below SQLite's oldest limit on parameters."""


class Database:
    """Transactions over the cache file. Thread-safe: one statement or transaction at a time.

    Raises:
        CacheError: The file cannot be opened; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with naming_faults(path):
            try:
                self._connection = open_connection(path)
            except OSError as error:
                raise CacheError(
                    f"the cache {path} cannot be made: {error.strerror}; name another with purchase.cache"
                ) from error

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


_PRIMARY_CODE = 0xFF  # the low byte of an extended result code

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


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Turn every SQLite error of the block into a `CacheError` about `path`.

    Raises:
        CacheError: SQLite failed.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        remedy = _REMEDIES.get((code or 0) & _PRIMARY_CODE, "run the same command again")
        raise CacheError(f"{path}: {error}: {remedy}") from error


@contextmanager
def purchase_lock(cache_path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the turn while the block runs; `waiting` is told if another purchase has it.

    The file stays behind: removing it would let two processes lock two files of one name.

    Raises:
        CacheError: The lock file cannot be made or locked.
    """
    path = Path(f"{cache_path.resolve()}.lock")  # one lock, by whichever link the cache is named
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CacheError(
            f"{path} cannot be made: {error.strerror}; change the permissions, or name another file with purchase.cache"
        ) from error
    try:
        _lock(descriptor, path, waiting)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, waiting: Callable[[], None]) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise CacheError(f"{path} cannot be locked: {error.strerror}; keep purchase.cache on a local disk") from error
