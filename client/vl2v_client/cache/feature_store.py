"""Features that a frozen student has computed, on disk beside the cache: they spare work, and may be deleted."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.database import CHUNK

STORE_BYTES = 2**29
"""Size of the file: 190,000 views of a student with 1,280 features."""

_TABLE = """
CREATE TABLE IF NOT EXISTS features (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL) STRICT
"""


class FeatureStore:
    """Vectors in half precision by key, up to a bound; the oldest make room. Thread-safe; processes may share it.

    A disk that is full, fails or holds something else at the path loses features and nothing more: they are computed
    again.

    Args:
        path: The SQLite file; opened when it is first used.
        max_bytes: Bound on its size.
    """

    def __init__(self, path: Path, max_bytes: int = STORE_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._is_broken = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float16]]:
        """Return the vectors `[F]` of those keys that are here."""
        found: dict[bytes, NDArray[np.float16]] = {}
        with self._lock, suppress(sqlite3.Error, OSError):
            if (connection := self._open()) is not None:
                for start in range(0, len(keys), CHUNK):
                    some = keys[start : start + CHUNK]
                    query = f"SELECT key, vector FROM features WHERE key IN ({','.join('?' * len(some))})"  # nosec B608
                    rows = connection.execute(query, some)
                    found.update((key, np.frombuffer(vector, dtype="<f2")) for key, vector in rows)
        return found

    def put(self, vectors: Iterable[tuple[bytes, NDArray[np.float16]]]) -> None:
        """Keep vectors `[F]`."""
        rows = [(key, vector.astype("<f2").tobytes()) for key, vector in vectors]
        with self._lock, suppress(sqlite3.Error, OSError):
            connection = self._open()
            if connection is not None and rows:
                with connection:
                    connection.executemany("INSERT OR IGNORE INTO features (key, vector) VALUES (?, ?)", rows)
                    self._make_room(connection)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection, self._is_broken = None, True

    def _make_room(self, connection: sqlite3.Connection) -> None:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self._max_bytes:
            connection.execute(
                "DELETE FROM features WHERE id <= (SELECT id FROM features ORDER BY id LIMIT 1 "
                "OFFSET (SELECT count(*) / 4 FROM features))"
            )

    def _open(self) -> sqlite3.Connection | None:
        """Return the connection; None if there is none to be had."""
        if self._connection is None and not self._is_broken:
            self._is_broken = True  # unless what follows ends well
            self._connection = _connect(self._path)
            self._is_broken = False
        return self._connection


class FeatureFolder:
    """Features of many views at a time by key, one file for each such part, for runs in any processes on any hosts.

    What a run reads does not depend on what is kept: a part is computed whole, or read whole. Runs that compute it at
    the same time write the same; a disk that is full or fails keeps nothing.

    Args:
        path: The folder; made when it is first used.
        max_bytes: About the size at which it takes no more.
    """

    def __init__(self, path: Path, max_bytes: int = STORE_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes

    def part(self, key: bytes, compute: Callable[[], NDArray[np.float16]]) -> NDArray[np.float16]:
        """Return the features `[B, F]` of a key, computed if they are not here."""
        path = self._path / f"{key.hex()}.npy"
        with suppress(OSError, ValueError, EOFError):
            found: NDArray[np.float16] = np.load(path)
            return found
        features = compute()
        partial = path.with_suffix(f".{token_hex(4)}.partial")
        with suppress(OSError):
            self._path.mkdir(parents=True, exist_ok=True)
            if sum(one.stat().st_size for one in self._path.iterdir()) + features.nbytes <= self._max_bytes:
                with partial.open("wb") as file:
                    np.save(file, features)
                partial.replace(path)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        return features


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # for its owner alone, as the cache itself
    connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except BaseException:
        connection.close()
        raise
    return connection
