"""Memos that make a second plan fast: the hash of a file that has not changed, the hash of a view's pixels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v_client.cache.database import Database

_NOT_DECODED = 0
"""Width and height of a file whose bytes alone were read."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells without reading whether a file may have changed.

    Attributes:
        path: Absolute.
        size_bytes: Size of the file in bytes.
        changed_ns: When its content or its inode changed last. Unlike the time of modification alone, which archives
            and image builds set, nobody sets the inode's.
    """

    path: Path
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the stamp of a file as it is now.

        Raises:
            OSError: There is no such file.
        """
        status = path.stat()
        return cls(path.absolute(), status.st_size, changed_ns(status))


def changed_ns(status: os.stat_result) -> int:
    """Return the `FileStamp.changed_ns` of a file."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes and, once decoded, its picture's size in pixels."""

    file_sha: str
    width: int
    height: int


class ContentMemo:
    """Hashes already computed, over the cache's database. Losing them costs time only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def files(self, stamps: Iterable[FileStamp]) -> dict[FileStamp, FileContent]:
        """Return the contents of those files whose stamp is as remembered."""
        by_path = {str(stamp.path): stamp for stamp in stamps}
        columns = "path, size_bytes, mtime_ns, file_sha, width, height"
        query = f"SELECT {columns} FROM file_contents WHERE path IN ({{keys}}) AND width > {_NOT_DECODED}"
        found: dict[FileStamp, FileContent] = {}
        for path, size_bytes, mtime_ns, *content in self._database.rows_of(query, by_path):
            stamp = by_path[path]
            if (size_bytes, mtime_ns) == (stamp.size_bytes, stamp.changed_ns):
                found[stamp] = FileContent(*content)
        return found

    def remember_files(self, contents: Mapping[FileStamp, FileContent]) -> None:
        """Keep what was read."""
        rows = [
            (str(stamp.path), stamp.size_bytes, stamp.changed_ns, content.file_sha, content.width, content.height)
            for stamp, content in contents.items()
        ]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO file_contents VALUES (?, ?, ?, ?, ?, ?)", rows)

    def hashes_below(self, folder: str) -> dict[str, tuple[int, int, str]]:
        """Return size, modification time and hash of every remembered file below a folder, by absolute path."""
        query = "SELECT path, size_bytes, mtime_ns, file_sha FROM file_contents WHERE path > ? AND path < ?"
        rows = self._database.rows(query, (f"{folder}/", f"{folder}0"))  # 0 comes after /
        return {path: (size_bytes, mtime_ns, file_sha) for path, size_bytes, mtime_ns, file_sha in rows}

    def remember_hashes(self, hashes: Iterable[tuple[str, int, int, str]]) -> None:
        """Keep the hashes of files that were not decoded: absolute path, size, modification time, hash."""
        rows = [(*row, _NOT_DECODED, _NOT_DECODED) for row in hashes]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO file_contents VALUES (?, ?, ?, ?, ?, ?)", rows)

    def views(self, view_keys: Iterable[bytes]) -> dict[bytes, str]:
        """Return content hashes of those views that are remembered, by `view_key`."""
        query = "SELECT view_key, content_sha FROM view_contents WHERE view_key IN ({keys})"
        return {key: content.hex() for key, content in self._database.rows_of(query, view_keys)}

    def remember_views(self, contents: Sequence[tuple[bytes, str]]) -> None:
        """Keep the content hashes of rendered views."""
        rows = [(key, bytes.fromhex(content_sha)) for key, content_sha in contents]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO view_contents VALUES (?, ?)", rows)


def view_key(file_sha: str, view: Mapping[str, Any], *, image_size: int, renderer: str) -> bytes:
    """Return the name of a view's pixels: the file, the view as JSON, the size and the renderer's version."""
    text = json.dumps([file_sha, view, image_size, renderer], separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
