"""What the client remembers of its purchases, for reading, and of its vendors: keys, models and audited chains."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from vl2v_client.cache.database import CHUNK, Database
from vl2v_client.core.errors import CacheError, VendorChanged
from vl2v_client.core.values import PriceTag, TeacherModel
from vl2v_contract.identity import Modality
from vl2v_contract.records import PublicKey, Receipt


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

IMPORTED = "imported"
"""Task of purchases that other software made, and this cache took over."""


class NamedItem(NamedTuple):
    """An item that this cache has named; `account_id` and `seq` are of the entry that paid for it."""

    state: str
    ledger_id: str
    account_id: str | None
    seq: int | None
    modality: str
    model_id: str


@dataclass
class PurchaseRecords:
    """What was bought, over the cache's database. Everything is streamed."""

    _database: Database

    def paid_rows(self) -> Iterator[PaidRow]:
        """Yield every paid item with its vector and receipt, in key order."""
        query = (
            "SELECT i.item_key, i.ledger_id, i.seq, i.result_sha, i.recompute_json, e.vector, r.receipt_json"
            " FROM intents i LEFT JOIN embeddings e USING (cache_key)"
            " LEFT JOIN receipts r USING (ledger_id, account_id, seq)"
            " WHERE i.state = 'paid' AND i.item_key > ? ORDER BY i.item_key LIMIT ?"
        )
        after = b""
        while rows := self._database.rows(query, (after, CHUNK)):
            for key, ledger_id, seq, result_sha, recompute_json, vector, receipt in rows:
                known = None if receipt is None else self._receipt(receipt)
                yield PaidRow(key.hex(), ledger_id, seq, result_sha, recompute_json, vector, known)
            after = rows[-1][0]

    def receipt(self, ledger_id: str, account_id: str, seq: int) -> Receipt:
        """Return the receipt of an entry; it must be one that `receipt_hashes` has named."""
        query = "SELECT receipt_json FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq = ?"
        return self._receipt(self._database.rows(query, (ledger_id, account_id, seq))[0][0])

    def receipt_hashes(self, ledger_id: str, account_id: str, seqs: Iterable[int]) -> dict[int, str]:
        """Return entry hashes of those receipts that are here, by seq."""
        query = "SELECT seq, entry_hash FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq IN ({keys})"
        return dict(self._database.rows_of(query, seqs, (ledger_id, account_id)))

    def receipt_places(self, ledger_id: str, account_id: str) -> Iterator[tuple[int, str, int, int]]:
        """Yield seq, request, units and money of each receipt of an account, by seq."""
        query = (
            "SELECT seq, request_id, units, amount_micro FROM receipts"
            " WHERE ledger_id = ? AND account_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        after = 0
        while rows := self._database.rows(query, (ledger_id, account_id, after, CHUNK)):
            yield from rows
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
        """Return ids of the API keys that this cache has bought with, by its receipts."""
        query = "SELECT DISTINCT api_key_id FROM receipts r WHERE ledger_id = ? AND account_id = ?"
        values = [ledger_id, account_id]
        if self._has_imports():
            query += (
                " AND NOT EXISTS (SELECT * FROM intents i JOIN purchases p ON p.id = i.purchase_id WHERE p.task = ?"
                " AND i.ledger_id = r.ledger_id AND i.account_id = r.account_id AND i.seq = r.seq)"
            )
            values.append(IMPORTED)
        return {row[0] for row in self._database.rows(query, values) if row[0] is not None}

    def imported_seqs(self, ledger_id: str, account_id: str, seqs: Iterable[int]) -> set[int]:
        """Return those of the entries that other software made, and that this cache took over, whole or in part."""
        if not self._has_imports():
            return set()
        query = (
            "SELECT DISTINCT i.seq FROM intents i JOIN purchases p ON p.id = i.purchase_id"
            " WHERE p.task = ? AND i.ledger_id = ? AND i.account_id = ? AND i.seq IN ({keys})"
        )
        return {row[0] for row in self._database.rows_of(query, seqs, (IMPORTED, ledger_id, account_id))}

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

    def prices(self, cache_keys: Iterable[str]) -> dict[str, int]:
        """Return the price, in micro-units, of each of those vectors that were paid."""
        query = "SELECT cache_key, unit_price_micro FROM intents WHERE state = 'paid' AND cache_key IN ({keys})"
        rows = self._database.rows_of(query, map(bytes.fromhex, dict.fromkeys(cache_keys)))
        return {key.hex(): amount_micro for key, amount_micro in rows}

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

    def _has_imports(self) -> bool:
        return bool(self._database.rows("SELECT 1 FROM purchases WHERE task = ? LIMIT 1", (IMPORTED,)))

    def _receipt(self, text: str) -> Receipt:
        try:
            return Receipt.from_json(text)
        except ValueError as error:
            what = f"the cache {self._database.path} holds a damaged receipt"
            raise CacheError(f"{what}: restore a copy of it") from error


@dataclass(frozen=True, slots=True)
class AuditedHead:
    """The end of an account's chain when it was last audited.

    Attributes:
        accepted_seq: Up to this entry the user has accepted what other software bought with this cache's API keys.
    """

    seq: int
    entry_hash: str
    accepted_seq: int = 0


@dataclass
class VendorBook:
    """Pins and memories, over the cache's database."""

    _database: Database

    def first_key(self, ledger_id: str) -> str | None:
        """Return the Base64 text of the signing key that this vendor showed when first met."""
        rows = self._database.rows("SELECT first_key FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return str(rows[0][0]) if rows else None

    def keys(self, ledger_id: str) -> tuple[PublicKey, ...]:
        """Return the public keys as last checked, oldest first; none if the vendor is new."""
        rows = self._database.rows("SELECT keys_json FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return tuple(PublicKey(**record) for record in json.loads(rows[0][0])) if rows else ()

    def remember_keys(self, ledger_id: str, keys: Sequence[PublicKey]) -> None:
        """Pin the first key, for ever, and keep the whole checked line, which can only grow.

        Raises:
            VendorChanged: The vendor publishes another successor of a key than it did before.
        """
        known = self.keys(ledger_id)
        for before, now in zip(known, keys, strict=False):
            if before.public_key != now.public_key:
                raise VendorChanged(
                    f"vendor {ledger_id} publishes signing key {now.key_id} where it had published {before.key_id}: "
                    "one of its lines of keys is false; do not buy until the vendor has explained it"
                )
        if tuple(keys) == known or len(keys) < len(known):  # another process has seen a newer key meanwhile
            return
        line = json.dumps([asdict(key) for key in keys], separators=(",", ":"))
        self._database.write_all(
            "INSERT INTO vendors (ledger_id, first_key, keys_json) VALUES (?, ?, ?)"
            " ON CONFLICT (ledger_id) DO UPDATE SET keys_json = excluded.keys_json",
            [(ledger_id, keys[0].public_key, line)],
        )

    def images_per_second(self, ledger_id: str) -> float | None:
        """Return how fast this vendor delivered last time; None if never measured."""
        rows = self._database.rows("SELECT images_per_second FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return None if not rows or rows[0][0] is None else float(rows[0][0])

    def remember_rate(self, ledger_id: str, images_per_second: float) -> None:
        """Keep a measured rate for the next plan's estimate."""
        row = (images_per_second, ledger_id)
        self._database.write_all("UPDATE vendors SET images_per_second = ? WHERE ledger_id = ?", [row])

    def teacher(self, url: str, asked_for: str | None) -> TeacherModel | None:
        """Return the model that `url` showed last under this name."""
        rows = self._database.rows(
            "SELECT teacher_json FROM teachers WHERE url = ? AND asked_for = ?", (url, asked_for or "")
        )
        if not rows:
            return None
        record = json.loads(rows[0][0])
        return TeacherModel(**{**record, **{name: PriceTag(**record[name]) for name in ("image_price", "text_price")}})

    def remember_teacher(self, url: str, asked_for: str | None, teacher: TeacherModel) -> None:
        """Keep what `url` shows now, to notice a change and to work without the vendor."""
        if self.teacher(url, asked_for) != teacher:
            row = (url, asked_for or "", json.dumps(asdict(teacher), separators=(",", ":")))
            self._database.write_all("INSERT OR REPLACE INTO teachers VALUES (?, ?, ?)", [row])

    def audited_head(self, ledger_id: str, account_id: str) -> AuditedHead | None:
        """Return the end of the chain that the next statement must extend."""
        query = "SELECT seq, entry_hash, accepted_seq FROM audited_heads WHERE ledger_id = ? AND account_id = ?"
        rows = self._database.rows(query, (ledger_id, account_id))
        return AuditedHead(*rows[0]) if rows else None

    def pin_head(self, ledger_id: str, account_id: str, seq: int, entry_hash: str) -> None:
        """Keep the end of a chain that was verified element by element."""
        self._database.write_all(
            "INSERT INTO audited_heads (ledger_id, account_id, seq, entry_hash) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (ledger_id, account_id) DO UPDATE SET seq = excluded.seq, entry_hash = excluded.entry_hash",
            [(ledger_id, account_id, seq, entry_hash)],
        )

    def accept_others(self, ledger_id: str, account_id: str, seq: int) -> None:
        """Keep that the user accepts what other software bought up to an entry, on a chain whose end is pinned."""
        self._database.write_all(
            "UPDATE audited_heads SET accepted_seq = ? WHERE ledger_id = ? AND account_id = ?",
            [(seq, ledger_id, account_id)],
        )
