"""From an SQLite error to a message that says which file, what happened and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vl2v_client.core.errors import CacheError

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
