"""The cache: one SQLite file that holds everything bought. Losing it means paying again only after retention ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from vl2v_client.cache.contents import ContentMemo
from vl2v_client.cache.database import Database
from vl2v_client.cache.purchase_lock import purchase_lock
from vl2v_client.cache.purchases import PurchaseLedger
from vl2v_client.cache.records import PurchaseRecords
from vl2v_client.cache.vendors import VendorBook
from vl2v_client.core.deliveries import HalfVector


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

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def purchase_lock(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Keep other purchases on this file away while the block runs; `waiting` is told if one has to end first.

        Raises:
            CacheError: On entry, if the lock file beside the cache cannot be made or locked.
        """
        return purchase_lock(self.path, waiting)

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
        spent = {
            ledger_id: (units, amount_micro, currency)
            for ledger_id, units, amount_micro, currency in self._database.rows(
                "SELECT ledger_id, sum(units), sum(amount_micro), max(currency) FROM receipts GROUP BY ledger_id"
            )
        }
        rows = self._database.rows(
            "SELECT ledger_id, sum(state = 'paid'), sum(state = 'sent') FROM intents GROUP BY ledger_id"
        )
        vendors = [VendorStats(row[0], row[1], row[2], *spent.get(row[0], (0, 0, ""))) for row in rows]
        count = self._database.rows("SELECT count(*) FROM embeddings")[0][0]
        return CacheStats(self.path, _size_bytes(self.path), count, tuple(vendors))


def default_cache_path(environment: Mapping[str, str]) -> Path:
    """Return `$XDG_DATA_HOME/vl2v/client.db`, by default below `~/.local/share`."""
    base = environment.get("XDG_DATA_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".local" / "share"
    return Path(base) / "vl2v" / "client.db"


def _size_bytes(path: Path) -> int:
    return sum(os.path.getsize(f"{path}{suffix}") for suffix in ("", "-wal") if os.path.exists(f"{path}{suffix}"))
