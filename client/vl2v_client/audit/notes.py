"""What an audit notes down on disk while it reads, so that a statement of any length needs little memory."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vl2v_client.cache.database import CHUNK, naming_faults


class _Notes:
    """A table in a private temporary file that vanishes with it."""

    def __init__(self, columns: str) -> None:
        self._folder = Path(tempfile.gettempdir())
        with naming_faults(self._folder):
            self._connection = sqlite3.connect("", isolation_level=None)
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute(f"CREATE TABLE notes ({columns}) WITHOUT ROWID")
            self._connection.execute("BEGIN")

    def close(self) -> None:
        """Drop the notes."""
        self._connection.close()


class KeySet(_Notes):
    """A set of short keys."""

    def __init__(self) -> None:
        super().__init__("key BLOB PRIMARY KEY")

    def add(self, keys: Sequence[bytes]) -> list[bytes]:
        """Add all; returns those that were in the set before, or came twice."""
        with naming_faults(self._folder):
            return [key for key in keys if not self._insert(key)]

    def __contains__(self, key: bytes) -> bool:
        with naming_faults(self._folder):
            return self._connection.execute("SELECT 1 FROM notes WHERE key = ?", (key,)).fetchone() is not None

    def chunks(self, size: int = CHUNK) -> Iterator[list[bytes]]:
        """Yield all keys in order, `size` at a time."""
        chunk = self._after(b"", size)
        while chunk:
            yield chunk
            chunk = self._after(chunk[-1], size)

    def _after(self, key: bytes, size: int) -> list[bytes]:
        query = "SELECT key FROM notes WHERE key > ? ORDER BY key LIMIT ?"
        with naming_faults(self._folder):
            return [row[0] for row in self._connection.execute(query, (key, size))]

    def _insert(self, key: bytes) -> bool:
        return self._connection.execute("INSERT OR IGNORE INTO notes VALUES (?)", (key,)).rowcount == 1


class RefundableCharges(_Notes):
    """How many units of each charge are left to be refunded, and on what terms."""

    def __init__(self) -> None:
        super().__init__("seq INTEGER PRIMARY KEY, terms INTEGER NOT NULL, left_units INTEGER NOT NULL")

    def charge(self, seq: int, terms: Iterable[object], units: int) -> None:
        """Note a charge; a number that came before stays what it was."""
        with naming_faults(self._folder):
            self._connection.execute("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", (seq, hash(tuple(terms)), units))

    def refund(self, seq: int, terms: Iterable[object], units: int) -> bool:
        """Take units off a charge; False, and nothing taken, if it is not there on these terms with so many left."""
        query = "UPDATE notes SET left_units = left_units - ?1 WHERE seq = ?2 AND terms = ?3 AND left_units >= ?1"
        with naming_faults(self._folder):
            return self._connection.execute(query, (units, seq, hash(tuple(terms)))).rowcount == 1
