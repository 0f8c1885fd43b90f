"""Notes on disk while an audit reads, so that a statement of any length needs little memory."""

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vl2v_client.cache.database import CHUNK, naming_faults


class Notes:
    """Tables in a private temporary file that vanishes when it is closed."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir())
        self._tables = 0
        with naming_faults(self._folder):
            self._connection = sqlite3.connect("", isolation_level=None)
        for statement in ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = OFF", "BEGIN"):
            self.run(statement)

    def run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute one statement."""
        with naming_faults(self._folder):
            return self._connection.execute(statement, values)

    def table(self, columns: str) -> str:
        """Make a table; returns its name."""
        self._tables += 1
        self.run(f"CREATE TABLE notes_{self._tables} ({columns}) WITHOUT ROWID")
        return f"notes_{self._tables}"

    def close(self) -> None:
        """Drop the notes."""
        self._connection.close()


class KeySet:
    """A set of short keys."""

    def __init__(self, notes: Notes) -> None:
        self._run = notes.run
        self._table = notes.table("key BLOB PRIMARY KEY")

    def add(self, keys: Sequence[bytes]) -> list[bytes]:
        """Add all; returns those that were in the set before, or came twice."""
        insert = f"INSERT OR IGNORE INTO {self._table} VALUES (?)"
        return [key for key in keys if self._run(insert, (key,)).rowcount == 0]

    def __contains__(self, key: bytes) -> bool:
        return self._run(f"SELECT 1 FROM {self._table} WHERE key = ?", (key,)).fetchone() is not None  # nosec # a table of our naming

    def chunks(self) -> Iterator[list[bytes]]:
        """Yield all keys in order, a chunk at a time."""
        query = f"SELECT key FROM {self._table} WHERE key > ? ORDER BY key LIMIT ?"  # nosec # a table of our naming
        chunk = [b""]
        while chunk := [row[0] for row in self._run(query, (chunk[-1], CHUNK)).fetchall()]:
            yield chunk
