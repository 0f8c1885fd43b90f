"""The cache: one SQLite file that holds everything bought. Losing it means paying again only after retention ends."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from vl2v_client.cache.database import Database
from vl2v_client.cache.feature_store import FeatureStore
from vl2v_client.cache.purchases import PurchaseLedger
from vl2v_client.cache.records import PurchaseRecords, VendorBook
from vl2v_client.core.deliveries import HalfVector
from vl2v_client.core.errors import CacheError


class FileStamp(NamedTuple):
    """What tells without reading whether a file may have changed.

    Attributes:
        path: Absolute, if the stamp is remembered.
        size_bytes: Size of the file in bytes.
        changed_ns: When its content or its inode changed last. Unlike the time of modification alone, which archives
            and image builds set, nobody sets the inode's.
    """

    path: str
    size_bytes: int
    changed_ns: int


class FileContent(NamedTuple):
    """A file's bytes and, once decoded, its picture's size in pixels."""

    file_sha: str
    width: int = 0
    height: int = 0


@dataclass
class ContentMemo:
    """Hashes already computed, over the cache's database: a second plan is fast. Losing them costs time only."""

    _database: Database

    def files(self, stamps: Collection[FileStamp]) -> dict[FileStamp, FileContent]:
        """Return the contents of those files whose stamp is as remembered, if they were decoded."""
        wanted = set(stamps)
        query = "SELECT * FROM file_contents WHERE path IN ({keys}) AND width > 0"
        rows = self._database.rows_of(query, (stamp.path for stamp in stamps))
        found = ((FileStamp(*row[:3]), FileContent(*row[3:])) for row in rows)
        return {stamp: content for stamp, content in found if stamp in wanted}

    def hashes_below(self, folder: str) -> dict[tuple[str, int, int], str]:
        """Return the hash of every remembered file below a folder, by its stamp as a plain tuple."""
        query = "SELECT path, size_bytes, mtime_ns, file_sha FROM file_contents WHERE path > ? AND path < ?"
        rows = self._database.rows(query, (f"{folder}/", f"{folder}0"))  # 0 comes after /
        return {row[:3]: row[3] for row in rows}

    def remember_files(self, contents: Iterable[tuple[FileStamp, FileContent]]) -> None:
        """Keep what was read."""
        rows = ((*stamp, *content) for stamp, content in contents)
        self._database.write_all("INSERT OR REPLACE INTO file_contents VALUES (?, ?, ?, ?, ?, ?)", rows)

    def views(self, view_keys: Iterable[bytes]) -> dict[bytes, str]:
        """Return content hashes of those views that are remembered, by a hash of what decides their pixels."""
        query = "SELECT view_key, content_sha FROM view_contents WHERE view_key IN ({keys})"
        return {key: content.hex() for key, content in self._database.rows_of(query, view_keys)}

    def remember_views(self, contents: Sequence[tuple[bytes, str]]) -> None:
        """Keep the content hashes of rendered views."""
        rows = ((key, bytes.fromhex(content_sha)) for key, content_sha in contents)
        self._database.write_all("INSERT OR REPLACE INTO view_contents VALUES (?, ?)", rows)


@dataclass(frozen=True, slots=True)
class VendorStats:
    """What was bought from one vendor."""

    ledger_id: str
    paid_items: int
    sent_items: int
    billed_units: int
    amount_micro: int
    currency: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The cache at a glance."""

    path: Path
    size_bytes: int
    embeddings: int
    vendors: tuple[VendorStats, ...]


class EmbeddingCache:
    """Embeddings, purchases, vendors and memos in one file. Thread-safe; several processes may share it.

    Attributes:
        purchases: The client's own ledger, for buying.
        records: The same ledger, for reading.
        vendors: Pinned keys and audited heads.
        contents: Memos of file and view hashes.
        features: What frozen students have said of views, in a file beside this one.

    Args:
        path: The SQLite file; made, readable by its owner only, if it is not there.

    Raises:
        CacheError: The file cannot be used; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self.path = path
        self.purchases = PurchaseLedger(self._database)
        self.records = PurchaseRecords(self._database)
        self.vendors = VendorBook(self._database)
        self.contents = ContentMemo(self._database)
        self.features = FeatureStore(path.with_name(f"{path.stem}-features.db"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        self._database.close()
        self.features.close()

    @contextmanager
    def purchase_lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other purchases on this file away while the block runs; `waiting` is told if one has to end first.

        What one purchase has sent and not yet received looks to another like something lost: it would ask the vendor
        for it too early, hear that it was never paid, and take it back. The lock is a file beside the cache, held by
        the kernel, so that no crash leaves it locked; removing it would let two processes lock two files of one name.
        On a system without such locks the file itself is the lock, and names the process that holds it.

        Raises:
            CacheError: The lock file cannot be made or locked.
        """
        lock = FileLock(f"{self.path.resolve()}.lock", mode=0o600)  # one lock, by whichever link the cache is named
        with _acquired(lock, waiting):
            yield

    @property
    def item_secret(self) -> bytes:
        """The 32 bytes that make this cache's item keys; whoever has them can name its purchases."""
        return bytes(self._database.rows("SELECT value FROM secrets WHERE name = 'item'")[0][0])

    def get_many(self, cache_keys: Iterable[str]) -> dict[str, HalfVector]:
        """Return vectors `[D]` float16 of those keys that are here."""
        query = "SELECT cache_key, vector FROM embeddings WHERE cache_key IN ({keys})"
        rows = self._database.rows_of(query, map(bytes.fromhex, dict.fromkeys(cache_keys)))
        return {key.hex(): np.frombuffer(vector, dtype="<f2") for key, vector in rows}

    def missing(self, cache_keys: Iterable[str]) -> list[str]:
        """Return those of the keys that are not here, each once, in order."""
        wanted = list(dict.fromkeys(cache_keys))
        query = "SELECT cache_key FROM embeddings WHERE cache_key IN ({keys})"
        held = {row[0].hex() for row in self._database.rows_of(query, map(bytes.fromhex, wanted))}
        return [key for key in wanted if key not in held]

    def stats(self) -> CacheStats:
        """Count and sums over everything."""
        query = """
            SELECT i.ledger_id, i.paid, i.sent, coalesce(r.units, 0), coalesce(r.amount, 0), coalesce(r.currency, '')
            FROM (SELECT ledger_id, sum(state = 'paid') paid, sum(state = 'sent') sent FROM intents GROUP BY 1) i
            LEFT JOIN (SELECT ledger_id, sum(units) units, sum(amount_micro) amount, max(currency) currency
                       FROM receipts GROUP BY 1) r USING (ledger_id) ORDER BY 1
        """
        vendors = [VendorStats(*row) for row in self._database.rows(query)]
        count = self._database.rows("SELECT count(*) FROM embeddings")[0][0]
        files = [name for name in (f"{self.path}", f"{self.path}-wal") if os.path.exists(name)]
        return CacheStats(self.path, sum(map(os.path.getsize, files)), count, tuple(vendors))


def default_cache_path(environment: Mapping[str, str]) -> Path:
    """Return `$XDG_DATA_HOME/vl2v/client.db`, by default below `~/.local/share`."""
    base = environment.get("XDG_DATA_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".local" / "share"
    return Path(base) / "vl2v" / "client.db"


def _acquired(lock: BaseFileLock, waiting: Callable[[], None]) -> AbstractContextManager[BaseFileLock]:
    try:
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            waiting()
            return lock.acquire()
    except OSError as error:
        remedy = "change the permissions, or keep purchase.cache elsewhere, on a local disk"
        raise CacheError(f"{lock.lock_file} cannot be locked: {error.strerror}; {remedy}") from error
