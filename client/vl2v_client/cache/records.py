"""Reading the client's own ledger: receipts, paid items, and what an audit needs to know of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vl2v_client.cache.database import CHUNK, Database
from vl2v_client.core.errors import CacheError
from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt


@dataclass(frozen=True, slots=True)
class PaidRow:
    """A paid item as stored, for checking; `vector` or `receipt` is None if it is missing."""

    item_key: str
    ledger_id: str
    seq: int
    result_sha: str
    recompute_json: str | None
    vector: bytes | None
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Paid:
    """Queries and money."""

    units: int
    amount_micro: int


NOTHING = Paid(0, 0)


class ReceiptPlace(NamedTuple):
    """Where a receipt belongs in the vendor's chain, and what it paid."""

    seq: int
    request_id: str
    units: int
    amount_micro: int


class NamedItem(NamedTuple):
    """An item that this cache has named; `account_id` and `seq` are of the entry that paid for it."""

    state: str
    ledger_id: str
    account_id: str | None
    seq: int | None
    modality: str
    model_id: str


class PurchaseRecords:
    """What was bought, over the cache's database. Everything is streamed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def paid_rows(self) -> Iterator[PaidRow]:
        """Yield every paid item with its vector and receipt, in key order."""
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

    def receipt(self, ledger_id: str, account_id: str, seq: int) -> Receipt:
        """Return the receipt of an entry; it must be one that `receipt_hashes` has named."""
        query = "SELECT receipt_json FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq = ?"
        return self._receipt(self._database.rows(query, (ledger_id, account_id, seq))[0][0])

    def receipt_hashes(self, ledger_id: str, account_id: str, seqs: Iterable[int]) -> dict[int, str]:
        """Return entry hashes of those receipts that are here, by seq."""
        query = "SELECT seq, entry_hash FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq IN ({keys})"
        return dict(self._database.rows_of(query, seqs, (ledger_id, account_id)))

    def receipt_places(self, ledger_id: str, account_id: str) -> Iterator[ReceiptPlace]:
        """Yield where each receipt of an account belongs, by seq."""
        query = (
            "SELECT seq, request_id, units, amount_micro FROM receipts"
            " WHERE ledger_id = ? AND account_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        after = 0
        while rows := self._database.rows(query, (ledger_id, account_id, after, CHUNK)):
            yield from (ReceiptPlace(*row) for row in rows)
            after = rows[-1][0]

    def last_seq(self, ledger_id: str, account_id: str) -> int:
        """Return the highest seq that a receipt here has; 0 without receipts."""
        query = "SELECT coalesce(max(seq), 0) FROM receipts WHERE ledger_id = ? AND account_id = ?"
        return int(self._database.rows(query, (ledger_id, account_id))[0][0])

    def paid_keys(self, ledger_id: str, account_id: str, seqs: Iterable[int]) -> dict[int, set[bytes]]:
        """Return keys of the items here that each of those entries paid for, by seq."""
        query = "SELECT seq, item_key FROM intents WHERE ledger_id = ? AND account_id = ? AND seq IN ({keys})"
        found: defaultdict[int, set[bytes]] = defaultdict(set)
        for seq, key in self._database.rows_of(query, seqs, (ledger_id, account_id)):
            found[seq].add(key)
        return found

    def named_items(self, item_keys: Iterable[bytes]) -> dict[bytes, NamedItem]:
        """Return those of the items that this cache has ever named."""
        query = (
            "SELECT item_key, state, ledger_id, account_id, seq, modality, model_id FROM intents"
            " WHERE item_key IN ({keys})"
        )
        return {key: NamedItem(*row) for key, *row in self._database.rows_of(query, item_keys)}

    def accounts_of_key(self, ledger_id: str, api_key_id: str) -> set[str]:
        """Return the accounts that receipts made with an API key name; a key belongs to one account for ever."""
        query = "SELECT DISTINCT account_id FROM receipts WHERE ledger_id = ? AND api_key_id = ?"
        return {row[0] for row in self._database.rows(query, (ledger_id, api_key_id))}

    def api_key_ids(self, ledger_id: str, account_id: str) -> set[str]:
        """Return ids of the API keys that this cache's receipts name."""
        query = "SELECT DISTINCT api_key_id FROM receipts WHERE ledger_id = ? AND account_id = ?"
        return {row[0] for row in self._database.rows(query, (ledger_id, account_id)) if row[0] is not None}

    def paid(self, cache_keys: Iterable[str]) -> dict[Modality, Paid]:
        """Return what was paid for those vectors, each once, at the price of its day."""
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
        """Return the accounts at one vendor whose receipts or sent items this cache holds."""
        query = (
            "SELECT account_id FROM receipts WHERE ledger_id = ? UNION SELECT account_id FROM purchases"
            " WHERE ledger_id = ? AND held_units > 0 AND account_id IS NOT NULL"
        )
        return {row[0] for row in self._database.rows(query, (ledger_id, ledger_id))}

    def agreed_prices(self, ledger_id: str) -> set[tuple[int, int, str]]:
        """Return every `(price_id, unit_price_micro, currency)` that a purchase here agreed to."""
        query = "SELECT price_id, unit_price_micro, currency FROM agreed_prices WHERE ledger_id = ?"
        return {(price_id, micro, currency) for price_id, micro, currency in self._database.rows(query, (ledger_id,))}

    def _receipt(self, text: str) -> Receipt:
        try:
            return Receipt.from_json(text)
        except ValueError as error:
            raise CacheError(
                f"the cache {self._database.path} holds a damaged receipt: restore a copy of it"
            ) from error
