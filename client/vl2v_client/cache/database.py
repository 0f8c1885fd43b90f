"""One connection for all threads of this process, beside other processes on the same file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl2v_client.cache.faults import naming_faults
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
