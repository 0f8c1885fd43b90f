"""Entries appended to a ledger as anybody can who writes its database: hashes are public, the signing key is not."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from support.ledger.ledger_shop import Shop, item_key, new_item
from vl2v_contract.chain import ChargedItem, EntryOrigin, LedgerEntry
from vl2v_contract.identity import canonical_json
from vl2v_vendor.ledger_sql.account_rows import _lock
from vl2v_vendor.ledger_sql.statements import entry_row
from vl2v_vendor.ledger_sql.tables import admin_log, budgets, charge_items, entry_signatures, ledger


def forge(connection: Connection, shop: Shop, compose: Callable[..., LedgerEntry]) -> LedgerEntry:
    """Append an entry to the chain as anybody can who writes the database: all its hashes are public."""
    end, budget_ids = _lock(connection, shop.signer, shop.account.id)
    entry = compose(end, EntryOrigin("adm_forged", shop.clock.now(), shop.signer.key_id))
    state = {"limit_units": entry.limit_units, "used_units": entry.used_units, "last_seq": entry.seq}
    state |= {"head_hash": entry.hash(), "last_created_at": entry.created_at}
    connection.execute(insert(ledger).values(entry_row(entry, entry.hash())))
    connection.execute(update(budgets).where(budgets.c.id == budget_ids[0]).values(state))
    return entry


def forge_top_up(connection: Connection, shop: Shop) -> LedgerEntry:
    """A top-up of 5, with its act in the staff's log."""
    entry = forge(connection, shop, lambda end, origin: LedgerEntry.top_up(end, origin, 5, None))
    parameters = {"account_id": shop.account.id, "units": 5, "note": None}
    act = {"request_id": "adm_forged", "act": "top_up", "account_id": shop.account.id, "created_at": entry.created_at}
    act |= {"parameters": canonical_json(parameters).decode(), "outcome": f'{{"seq":{entry.seq}}}'}
    connection.execute(insert(admin_log).values(act | {"actor": "cli:alice"}))
    return entry


def forge_charge(connection: Connection, shop: Shop) -> LedgerEntry:
    """A charge of one item that nobody bought."""
    sold = ChargedItem(item_key("forged"), "0" * 64, 1)
    order = shop.order_items(new_item("forged"))
    entry = forge(connection, shop, lambda end, origin: LedgerEntry.charge(end, origin, order, [sold], 100))
    item = {"account_id": entry.account_id, "item_key": sold.item_key, "seq": entry.seq, "idx": 0, "units": 1}
    connection.execute(insert(charge_items).values(item | {"fingerprint": "0" * 64, "result_sha": sold.result_sha}))
    return entry


def sign_badly(connection: Connection, shop: Shop) -> LedgerEntry:
    """A forged charge, with the signature of the entry before it."""
    forged = forge_charge(connection, shop)
    query = select(entry_signatures.c.signature).order_by(entry_signatures.c.seq.desc()).limit(1)
    row = {"account_id": forged.account_id, "seq": forged.seq, "signature": connection.execute(query).scalar_one()}
    connection.execute(insert(entry_signatures).values(row))
    return forged
