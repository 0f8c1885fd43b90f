"""Reading the client's own ledger: receipts, paid items, and what an audit needs to know of them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vl2v_client.cache.database import CHUNK, Database
from vl2v_client.cache.faults import naming_faults
from vl2v_client.core.deliveries import SignedReceipt
from vl2v_client.core.errors import CacheError
from vl2v_contract.identity import Modality


@dataclass(frozen=True, slots=True)
class PaidRow:
    """A paid item as stored, for checking; `vector` or `receipt` is None if it is missing."""

    item_key: str
    ledger_id: str
    seq: int
    result_sha: str
    recompute_json: str | None
    vector: bytes | None
    receipt: SignedReceipt | None


@dataclass(frozen=True, slots=True)
class Paid:
    """Queries and money."""

    units: int
    amount_micro: int


class PurchaseRecords:
    """What was bought, over the cache's database. Everything is streamed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def paid_rows(self) -> Iterator[PaidRow]:
        """Every paid item with its vector and receipt, in key order."""
        after = b""
        while True:
            rows = self._database.rows(
                "SELECT i.item_key, i.ledger_id, i.seq, i.result_sha, i.recompute_json, e.vector, r.receipt_json"
                " FROM intents i LEFT JOIN embeddings e USING (cache_key)"
                " LEFT JOIN receipts r USING (ledger_id, account_id, seq)"
                " WHERE i.state = 'paid' AND i.item_key > ? ORDER BY i.item_key LIMIT ?",
                (after, CHUNK),
            )
            for key, ledger_id, seq, result_sha, recompute_json, vector, receipt in rows:
                known = None if receipt is None else self._receipt(receipt)
                yield PaidRow(key.hex(), ledger_id, seq, result_sha, recompute_json, vector, known)
            if not rows:
                return
            after = rows[-1][0]

    def receipts(self, ledger_id: str, account_id: str) -> Iterator[SignedReceipt]:
        """Every receipt of an account, by seq."""
        after = 0
        while chunk := self._receipts(ledger_id, account_id, after + 1, CHUNK):
            yield from chunk
            after = chunk[-1].entry.seq

    def receipts_among(self, ledger_id: str, account_id: str, seqs: Iterable[int]) -> dict[int, SignedReceipt]:
        """Those receipts that are here, by seq."""
        query = "SELECT receipt_json FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq IN ({keys})"
        rows = self._database.rows_of(query, seqs, (ledger_id, account_id))
        return {receipt.entry.seq: receipt for receipt in (self._receipt(text) for (text,) in rows)}

    def last_seq(self, ledger_id: str, account_id: str) -> int:
        """The highest seq that a receipt here has; 0 without receipts."""
        query = "SELECT coalesce(max(seq), 0) FROM receipts WHERE ledger_id = ? AND account_id = ?"
        return int(self._database.rows(query, (ledger_id, account_id))[0][0])

    def states(self, item_keys: Iterable[str]) -> dict[str, str]:
        """`planned`, `sent` or `paid` of those items that this cache has ever named."""
        query = "SELECT item_key, state FROM intents WHERE item_key IN ({keys})"
        return {key.hex(): state for key, state in self._database.rows_of(query, map(bytes.fromhex, item_keys))}

    def api_key_ids(self, ledger_id: str, account_id: str) -> set[str]:
        """Ids of the API keys that this cache's receipts name."""
        query = "SELECT DISTINCT api_key_id FROM receipts WHERE ledger_id = ? AND account_id = ?"
        return {row[0] for row in self._database.rows(query, (ledger_id, account_id)) if row[0] is not None}

    def paid(self, cache_keys: Iterable[str]) -> dict[Modality, Paid]:
        """What was paid for those vectors, each once, at the price of its day."""
        query = (
            "SELECT modality, count(DISTINCT cache_key), sum(unit_price_micro) FROM intents"
            " WHERE state = 'paid' AND cache_key IN ({keys}) GROUP BY modality"
        )
        found: dict[Modality, Paid] = {"image": Paid(0, 0), "text": Paid(0, 0)}
        keys = map(bytes.fromhex, dict.fromkeys(cache_keys))
        for modality, units, amount_micro in self._database.rows_of(query, keys):
            before = found[modality]  # one row for each chunk of keys
            found[modality] = Paid(before.units + units, before.amount_micro + amount_micro)
        return found

    def account_ids(self, ledger_id: str) -> set[str]:
        """Accounts at one vendor that this cache's receipts name."""
        query = "SELECT DISTINCT account_id FROM receipts WHERE ledger_id = ?"
        return {row[0] for row in self._database.rows(query, (ledger_id,))}

    def agreed_prices(self, ledger_id: str) -> set[tuple[int, int, str]]:
        """Every `(price_id, unit_price_micro, currency)` that a purchase here agreed to."""
        query = "SELECT price_id, unit_price_micro, currency FROM agreed_prices WHERE ledger_id = ?"
        return {(price_id, micro, currency) for price_id, micro, currency in self._database.rows(query, (ledger_id,))}

    def _receipts(self, ledger_id: str, account_id: str, from_seq: int, limit: int) -> list[SignedReceipt]:
        query = (
            "SELECT receipt_json FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq >= ? ORDER BY seq LIMIT ?"
        )
        return [self._receipt(text) for (text,) in self._database.rows(query, (ledger_id, account_id, from_seq, limit))]

    def _receipt(self, text: str) -> SignedReceipt:
        try:
            return SignedReceipt.from_json(text)
        except ValueError as error:
            raise CacheError(
                f"the cache {self._database.path} holds a damaged receipt: restore a copy of it"
            ) from error


class KeySet:
    """A set of short keys that lives on disk, so that an audit of any length needs little memory."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir())
        with naming_faults(self._folder):
            self._connection = sqlite3.connect("", isolation_level=None)  # a private file that vanishes with it
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")
            self._connection.execute("BEGIN")

    def close(self) -> None:
        """Drop the set."""
        self._connection.close()

    def add(self, keys: Iterable[str]) -> list[str]:
        """Add all; returns those that were in the set before, or came twice."""
        with naming_faults(self._folder):
            return [key for key in keys if not self._insert(key)]

    def __contains__(self, key: str) -> bool:
        with naming_faults(self._folder):
            return self._connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None

    def chunks(self, size: int = CHUNK) -> Iterator[list[str]]:
        """All keys in order, `size` at a time."""
        chunk = self._after("", size)
        while chunk:
            yield chunk
            chunk = self._after(chunk[-1], size)

    def _after(self, key: str, size: int) -> list[str]:
        query = "SELECT key FROM keys WHERE key > ? ORDER BY key LIMIT ?"
        with naming_faults(self._folder):
            return [row[0] for row in self._connection.execute(query, (key, size))]

    def _insert(self, key: str) -> bool:
        return self._connection.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,)).rowcount == 1
