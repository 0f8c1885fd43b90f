"""The client's own ledger: what it meant to buy, what it sent, what is paid, and the receipts.

An item is `planned`, `sent` or `paid`. `sent` is on disk before the request leaves, so that after any crash the
client knows what the vendor may have charged, and asks for it again under the same item key, free of charge. A
vector, its receipt and `paid` are one transaction. A sent item that the vendor has charged and no longer keeps is
expired: it stays `sent`, since it is on the bill, until a purchase sends its content again, free of charge too.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import groupby
from typing import NamedTuple

from vl2v_client.cache.database import Database
from vl2v_client.cache.records import IMPORTED, Paid
from vl2v_client.core.deliveries import CHARGED, EXPIRED, UNKNOWN, DeliveredItem, Delivery
from vl2v_client.core.errors import BudgetExhausted, CacheError, VendorChanged
from vl2v_client.core.values import TeacherModel
from vl2v_contract.identity import Modality, sha256_hex
from vl2v_contract.records import Receipt
from vl2v_contract.vectors import encode_vector

_RESERVE = """
INSERT INTO intents (item_key, cache_key, ledger_id, modality, model_id, weights_sha, content_sha,
                     state, attempts, unit_price_micro, purchase_id)
SELECT ?, ?, ledger_id, ?, ?, ?, ?, 'sent', 1, ?, id FROM purchases WHERE id = ?
ON CONFLICT (item_key) DO UPDATE SET state = 'sent', attempts = attempts + 1,
    unit_price_micro = excluded.unit_price_micro, purchase_id = excluded.purchase_id
"""

_KEEP_RECEIPT = """
INSERT INTO receipts VALUES (:ledger_id, :account_id, :seq, :request_id, :api_key_id, :units, :unit_price_micro,
                             :amount_micro, :currency, :entry_hash, :receipt_json)
ON CONFLICT (ledger_id, account_id, seq) DO NOTHING
"""

_OPEN = "state = 'sent' AND state <> 'paid'"  # sent, in words that let SQLite use the index of what is open


@dataclass(frozen=True, slots=True)
class Intent:
    """One item about to be bought.

    Attributes:
        unit_price_micro: The price agreed to; a charge at another one is a difference.
    """

    item_key: str
    cache_key: str
    modality: Modality
    content_sha: str
    unit_price_micro: int


@dataclass
class PurchaseLedger:
    """Reservations, payments and receipts, over the cache's database."""

    _database: Database

    def open_purchase(
        self,
        teacher: TeacherModel,
        *,
        max_units: int | None,
        max_amount_micro: int | None,
        account_id: str | None = None,
        task: str | None = None,
    ) -> int:
        """Start a purchase at the teacher's prices that `reserve` will hold to its caps; returns its id.

        Args:
            teacher: Model whose prices are agreed to.
            max_units: Queries at most.
            max_amount_micro: Money at most.
            account_id: Account that pays; None if the key does not tell.
            task: What the purchase is for, see `spent`.
        """
        with self._database.write() as connection:
            return _open(connection, teacher, max_units, max_amount_micro, account_id, task)

    def spent(self, task: str) -> Paid:
        """Return what all purchases of a task have paid, or sent and may have to pay, at the prices agreed to."""
        sums = "coalesce(sum(held_units), 0), coalesce(sum(held_amount_micro), 0)"
        return Paid(*self._database.rows(f"SELECT {sums} FROM purchases WHERE task = ?", (task,))[0])  # nosec # constant columns

    def reserve(self, purchase_id: int, teacher: TeacherModel, intents: Sequence[Intent]) -> list[Intent]:
        """Mark items `sent`, on disk before this returns, if the purchase's caps hold them all.

        Returns:
            Those to send: items that another process has paid for meanwhile are left out. Expired ones stay with the
            purchase that paid for them.

        Raises:
            BudgetExhausted: Paid and sent items of this purchase and these together are above a cap; nothing changed.
        """
        with self._database.write() as connection:
            known = _states(connection, [intent.item_key for intent in intents])
            unpaid = [intent for intent in intents if known[intent.item_key].state != "paid"]
            fresh = [intent for intent in unpaid if not known[intent.item_key].is_expired]
            for row in (known[intent.item_key] for intent in fresh):
                if row.state == "sent":
                    _hold(connection, row.purchase_id, -1, -row.unit_price_micro)
            _hold(connection, purchase_id, len(fresh), sum(intent.unit_price_micro for intent in fresh))
            for intent in fresh:
                keys = (bytes.fromhex(intent.item_key), bytes.fromhex(intent.cache_key))
                content = (intent.modality, teacher.id, teacher.weights_sha, intent.content_sha)
                connection.execute(_RESERVE, (*keys, *content, intent.unit_price_micro, purchase_id))
        return unpaid

    def adopt(self, teacher: TeacherModel, account_id: str, intents: Sequence[Intent], delivery: Delivery) -> int:
        """Take over what other software bought, under the item keys of its charges: all of it in one transaction.

        Content that is here under another item key was bought twice; the later one is kept under a name of its own,
        which no plan asks for, so that every charge has its vector and receipt.

        Args:
            teacher: Model that was bought from, at the prices that were paid: they are agreed to.
            account_id: Account that paid.
            intents: The items.
            delivery: Their vectors and receipts.

        Returns:
            How many of them were bought twice.

        Raises:
            VendorChanged: As `store`.
        """
        twice = 0
        with self._database.write() as connection:
            purchase_id = _open(connection, teacher, None, None, account_id, IMPORTED)
            for intent in intents:
                cache_key = bytes.fromhex(intent.cache_key)
                connection.execute("DELETE FROM intents WHERE cache_key = ? AND state = 'planned'", (cache_key,))
                if connection.execute("SELECT 1 FROM intents WHERE cache_key = ?", (cache_key,)).fetchone():
                    cache_key, twice = bytes.fromhex(sha256_hex(f"bought twice {intent.item_key}".encode())), twice + 1
                content = (intent.modality, teacher.id, teacher.weights_sha, intent.content_sha)
                row = (bytes.fromhex(intent.item_key), cache_key, *content, intent.unit_price_micro, purchase_id)
                connection.execute(_RESERVE, row)
            _hold(connection, purchase_id, len(intents), sum(intent.unit_price_micro for intent in intents))
            _store(connection, delivery)
        return twice

    def release(self, item_keys: Sequence[str]) -> None:
        """Take back `sent` of items that were not charged; expired ones stay."""
        with self._database.write() as connection:
            _release(connection, item_keys)

    def store(self, delivery: Delivery) -> None:
        """Keep a delivery: vectors, receipts and `paid` in one transaction; what failed and is not charged is released.

        What the vendor has charged and no longer keeps is noted as expired, until the vendor no longer says so.
        Storing the same delivery twice changes nothing.

        Raises:
            VendorChanged: The vendor has signed another entry under a `seq` that we hold a receipt for.
            CacheError: An item was never reserved here.
        """
        with self._database.write() as connection:
            _store(connection, delivery)

    def outstanding(self, ledger_id: str) -> list[list[str]]:
        """Return sent items that the vendor may have charged and may still keep: a list for each model."""
        query = f"SELECT model_id, item_key FROM intents WHERE ledger_id = ? AND {_OPEN} AND NOT is_expired"  # nosec # constant columns
        rows = self._database.rows(f"{query} ORDER BY 1, 2", (ledger_id,))
        return [[key.hex() for _, key in group] for _, group in groupby(rows, key=lambda row: row[0])]

    def expired(self, ledger_id: str) -> set[str]:
        """Return item keys that the vendor has charged and no longer keeps: sent again, they cost nothing."""
        query = f"SELECT item_key FROM intents WHERE ledger_id = ? AND {_OPEN} AND is_expired"  # nosec # constant columns
        return {row[0].hex() for row in self._database.rows(query, (ledger_id,))}

    def paid_items(self, ledger_id: str, model_id: str, weights_sha: str) -> int:
        """Return how many vectors of one model are paid for."""
        query = (
            "SELECT count(*) FROM intents WHERE ledger_id = ? AND model_id = ? AND weights_sha = ? AND state = 'paid'"
        )
        return int(self._database.rows(query, (ledger_id, model_id, weights_sha))[0][0])


class _State(NamedTuple):
    state: str = ""  # of an item that was never named
    purchase_id: int = 0
    unit_price_micro: int = 0
    is_expired: bool = False


def _open(
    connection: sqlite3.Connection,
    teacher: TeacherModel,
    max_units: int | None,
    max_amount_micro: int | None,
    account_id: str | None,
    task: str | None,
) -> int:
    if max_units != 0:  # else nothing is bought, at no price
        prices = [(teacher.ledger_id, *astuple(price)) for price in (teacher.image_price, teacher.text_price)]
        connection.executemany("INSERT OR IGNORE INTO agreed_prices VALUES (?, ?, ?, ?)", prices)
    columns = "ledger_id, max_units, max_amount_micro, started_at, account_id, task"
    row = (teacher.ledger_id, max_units, max_amount_micro, time.time_ns() // 1000, account_id, task)
    cursor = connection.execute(f"INSERT INTO purchases ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)  # nosec # constant columns
    return int(cursor.lastrowid or 0)


def _store(connection: sqlite3.Connection, delivery: Delivery) -> None:
    receipts = {receipt.entry.seq: receipt for receipt in delivery.receipts}
    for receipt in delivery.receipts:
        _keep_receipt(connection, receipt)
    for item in delivery.items:
        _keep_item(connection, item, receipts[item.seq].entry.account_id)
    for failed in delivery.failed:
        if failed.code == EXPIRED:
            _expire(connection, failed.item_key)
        elif failed.code not in CHARGED:
            _release(connection, [failed.item_key], even_expired=failed.code == UNKNOWN)


def _states(connection: sqlite3.Connection, item_keys: Sequence[str]) -> dict[str, _State]:
    marks = ",".join("?" * len(item_keys))
    columns = "item_key, state, purchase_id, unit_price_micro, is_expired AND state = 'sent'"
    query = f"SELECT {columns} FROM intents WHERE item_key IN ({marks})"  # nosec # constant columns
    rows = connection.execute(query, [bytes.fromhex(key) for key in item_keys])
    return dict.fromkeys(item_keys, _State()) | {key.hex(): _State(*row) for key, *row in rows}


def _hold(connection: sqlite3.Connection, purchase_id: int, units: int, amount_micro: int) -> None:
    query = "SELECT held_units, held_amount_micro, max_units, max_amount_micro FROM purchases WHERE id = ?"
    held_units, held_micro, max_units, max_micro = connection.execute(query, (purchase_id,)).fetchone()
    if max_units is not None and held_units + units > max_units:
        raise BudgetExhausted(
            f"{units} more queries would bring this purchase to {held_units + units}, above its cap of {max_units}; "
            "raise purchase.max_queries",
            units=units,
            left=max_units - held_units,
        )
    if max_micro is not None and held_micro + amount_micro > max_micro:
        raise BudgetExhausted(
            f"{units} more queries would bring this purchase to {held_micro + amount_micro} micro-units of money, "
            f"above its cap of {max_micro}; raise purchase.max_cost",
            units=units,
        )
    connection.execute(
        "UPDATE purchases SET held_units = held_units + ?, held_amount_micro = held_amount_micro + ? WHERE id = ?",
        (units, amount_micro, purchase_id),
    )


def _expire(connection: sqlite3.Connection, item_key: str) -> None:
    row = _states(connection, [item_key])[item_key]
    if row.state == "planned":  # taken back too early
        _hold(connection, row.purchase_id, 1, row.unit_price_micro)
    query = "UPDATE intents SET state = 'sent', is_expired = 1 WHERE item_key = ? AND state <> 'paid'"
    connection.execute(query, (bytes.fromhex(item_key),))


def _release(connection: sqlite3.Connection, item_keys: Sequence[str], *, even_expired: bool = False) -> None:
    query = "UPDATE intents SET state = 'planned', is_expired = 0 WHERE item_key = ?"
    for key, row in _states(connection, item_keys).items():
        if row.state == "sent" and (even_expired or not row.is_expired):
            connection.execute(query, (bytes.fromhex(key),))
            _hold(connection, row.purchase_id, -1, -row.unit_price_micro)


def _keep_receipt(connection: sqlite3.Connection, receipt: Receipt) -> None:
    entry = receipt.entry
    more = {"entry_hash": receipt.entry_hash, "receipt_json": receipt.to_json()}
    connection.execute(_KEEP_RECEIPT, {**asdict(entry), **more})
    query = "SELECT entry_hash FROM receipts WHERE ledger_id = ? AND account_id = ? AND seq = ?"
    kept = connection.execute(query, (entry.ledger_id, entry.account_id, entry.seq)).fetchone()[0]
    if kept != receipt.entry_hash:
        raise VendorChanged(
            f"the vendor has signed two different entries as number {entry.seq} of account {entry.account_id}; "
            "buy no more, run `vl2v-client audit`, and show the vendor both receipts"
        )


def _keep_item(connection: sqlite3.Connection, item: DeliveredItem, account_id: str) -> None:
    key = bytes.fromhex(item.item_key)
    row = connection.execute("SELECT cache_key FROM intents WHERE item_key = ?", (key,)).fetchone()
    if row is None:
        what = f"item {item.item_key[:12]} was delivered but never reserved in this cache"
        raise CacheError(f"{what}; nothing was stored")
    vector = (row[0], encode_vector(item.vector, "float16"))
    connection.execute("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", vector)
    connection.execute(
        "UPDATE intents SET state = 'paid', account_id = ?, seq = ?, result_sha = ?, recompute_json = ?"
        " WHERE item_key = ? AND state <> 'paid'",
        (account_id, item.seq, item.result_sha, item.recompute_json, key),
    )
