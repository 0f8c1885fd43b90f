"""Books of any length on both sides: a vendor's ledger and the cache of the client who bought it all, made in bulk.

The vendor's own code makes the account, the key and the price; the entries, their chain and their signatures are what
a sale of each would have left, without the sales.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, update

from vl2v_client.cache.store import EmbeddingCache
from vl2v_contract.chain import ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import Receipt
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, ApiKey
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import LedgerHead
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import SecretSigner, load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine, writing
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import read_head, read_ledger_id, snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.signatures import signature_row
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.statements import entry_row
from vl2v_vendor.ledger_sql.tables import budgets, charge_items, entry_signatures, ledger

_VECTOR = bytes(16)
"""In place of every embedding: an audit reads none."""

_ENTRIES_AT_A_TIME = 500


@dataclass(frozen=True)
class Sale:
    """One charge."""

    entry: LedgerEntry
    entry_hash: str
    items: tuple[ChargedItem, ...]


def write_books(home: Path, *, items: int, items_per_request: int) -> str:
    """Write `home/vendor/vendor.db` and `home/client.db`; returns the client's API key."""
    engine = open_engine(f"sqlite:///{home / 'vendor' / 'vendor.db'}")
    upgrade(engine)
    signer = load_or_create_secrets(home / "vendor" / "vendor-secrets.json").signer()
    accounts = SqlAccounts(engine, signer=signer, clock=SystemClock())
    account = accounts.create_account("benchmark", budget_units=items)
    key, secret = accounts.create_key(account, scopes=DEFAULT_SCOPES)
    price = accounts.set_price(HashEncoder().info.id, "image", 100, "EUR")
    with EmbeddingCache(home / "client.db"):
        pass  # makes the tables
    cache = sqlite3.connect(home / "client.db", isolation_level=None)
    cache.execute("BEGIN")
    with writing(engine).begin() as connection:
        ledger_id, head = read_ledger_id(connection), read_head(connection, account.id)
        _prepare_cache(cache, ledger_id, price, items)
        template = _template(ledger_id, key, price, signer)
        batch: list[Sale] = []
        for sale in _sales(template, head, items, items_per_request):
            batch.append(sale)
            if len(batch) == _ENTRIES_AT_A_TIME:
                _write_sales(connection, cache, signer, batch)
                batch.clear()
        _write_sales(connection, cache, signer, batch)
        end = {"used_units": items, "last_seq": sale.entry.seq, "head_hash": sale.entry_hash}
        connection.execute(update(budgets).where(budgets.c.account_id == account.id).values(end))
    cache.execute("COMMIT")
    cache.close()
    with snapshot(engine) as connection:
        report = verify_ledger(connection)
    engine.dispose()
    assert report.clean, report.problems[:3]
    assert secret is not None
    return secret


def _template(ledger_id: str, key: ApiKey, price: Price, signer: SecretSigner) -> dict[str, object]:
    info = HashEncoder().info
    return {
        "ledger_id": ledger_id, "account_id": key.account_id, "kind": "charge", "api_key_id": key.id,
        "endpoint": "/v1/embeddings/images", "modality": "image", "model_id": info.id,
        "weights_sha": info.weights_sha, "precision": info.precision, "preprocessing_id": info.preprocessing_id,
        "price_id": price.id, "unit_price_micro": price.unit_price_micro, "currency": price.currency,
        "ref_seq": None, "note": None, "signing_key_id": signer.key_id,
    }  # fmt: skip


def _sales(template: dict[str, object], head: LedgerHead, items: int, items_per_request: int) -> Iterator[Sale]:
    seq, before, now = head.seq, head.entry_hash, SystemClock().now()
    unit_price = int(str(template["unit_price_micro"]))
    for start in range(0, items, items_per_request):
        numbers = range(start, min(start + items_per_request, items))
        result_sha = hashlib.sha256(_VECTOR).hexdigest()
        bought = tuple(ChargedItem(_key(number).hex(), result_sha, 1) for number in numbers)
        seq, units = seq + 1, len(bought)
        changes = {"seq": seq, "request_id": f"req_{seq:024x}", "units": units, "amount_micro": units * unit_price}
        state = {"used_units": start + units, "limit_units": head.limit_units, "created_at": now + seq}
        hashes = {"items_hash": items_hash(bought), "prev_hash": before}
        entry = LedgerEntry(**template, **changes, **state, **hashes)  # type: ignore[arg-type]
        before = entry.hash()
        yield Sale(entry, before, bought)


def _write_sales(
    connection: Connection, cache: sqlite3.Connection, signer: SecretSigner, sales: Sequence[Sale]
) -> None:
    if not sales:
        return
    connection.execute(insert(ledger), [entry_row(sale.entry, sale.entry_hash) for sale in sales])
    signatures = [signature_row(signer, sale.entry, sale.entry_hash) for sale in sales]
    connection.execute(insert(entry_signatures), signatures)
    rows = [
        {"account_id": sale.entry.account_id, "item_key": item.item_key, "seq": sale.entry.seq, "idx": index,
         "fingerprint": item.item_key[::-1], "result_sha": item.result_sha, "units": item.units}
        for sale in sales for index, item in enumerate(sale.items)
    ]  # fmt: skip
    connection.execute(insert(charge_items), rows)
    for sale in sales:
        entry = sale.entry
        signature = signer.sign_receipt(entry, sale.entry_hash)
        receipt = Receipt(entry, sale.entry_hash, entry.signing_key_id, signature)
        place = (entry.ledger_id, entry.account_id, entry.seq)
        paid = (entry.request_id, entry.api_key_id, entry.units, entry.unit_price_micro, entry.amount_micro)
        row = (*place, *paid, entry.currency, sale.entry_hash, receipt.to_json())
        cache.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        keys = [bytes.fromhex(item.item_key) for item in sale.items]
        model = (entry.ledger_id, "image", entry.model_id, entry.weights_sha, "0" * 64, "paid", 1, 100, 1)
        cache.executemany(
            "INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            [(key, key[::-1], *model, *place[1:], sale.items[0].result_sha) for key in keys],
        )
        cache.executemany("INSERT INTO embeddings VALUES (?, ?)", [(key[::-1], _VECTOR) for key in keys])


def _prepare_cache(cache: sqlite3.Connection, ledger_id: str, price: Price, items: int) -> None:
    cache.execute(
        "INSERT INTO agreed_prices VALUES (?, ?, ?, ?)", (ledger_id, price.id, price.unit_price_micro, price.currency)
    )
    cache.execute(
        "INSERT INTO purchases (id, ledger_id, held_units, started_at) VALUES (1, ?, ?, 0)", (ledger_id, items)
    )


def _key(number: int) -> bytes:
    return hashlib.sha256(f"item {number}".encode()).digest()
