"""Edits of several rows at once, as somebody makes them who knows the ledger: hashes are public, and can be fitted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from support.ledger.ledger_edits import Edit
from support.ledger.ledger_shop import fixed_signer, item_key
from vl2v_contract.chain import ChainEnd, ChargedItem, ChargeTerms, EntryOrigin, LedgerEntry
from vl2v_contract.identity import canonical_json
from vl2v_contract.vectors import result_sha
from vl2v_vendor.ledger_sql.statements import ENTRY_FIELDS, entry_row, unpack_vector

_LAST = "account_id = (SELECT id FROM accounts WHERE name = 'acme') ORDER BY seq DESC LIMIT 1"


def named_edits() -> Iterator[Edit]:
    """Yield them, each under the table that it is about."""
    for table, what, make in (
        ("ledger", "a top-up is appended and fits the chain", _forge_top_up),
        ("ledger", "a top-up is appended and fits the chain, with its act in the staff's log", _forge_logged_top_up),
        ("ledger", "a charge to the buyer's key is appended and fits the chain", _forge_charge),
        ("ledger", "such a charge, with the signature of an earlier one", _forge_signed_charge),
        ("ledger", "a charge is made dearer, and all hashes after it are made to fit", _rewrite),
        ("ledger", "all that came after the published head is deleted, and the end made to fit", _cut(10011)),
        ("ledger", "the last published charge is deleted with all after it, and the end made to fit", _cut(10010)),
        ("ledger", "a trigger keeps its name and has another body", _replace_trigger),
        ("entry_signatures", "all are deleted", _run("DELETE FROM entry_signatures")),
        ("entry_signatures", "all are deleted, and those of the acts", _forget_signatures),
        ("act_signatures", "all are deleted", _run("DELETE FROM act_signatures")),
        ("api_keys", "a key may do more, and the act that made it says so", _raise_scopes),
        ("signing_keys", "the first key is another, under its name", _swap_public_key),
        ("results", "a vector has one byte", _run("UPDATE results SET vector = substr(vector, 1, 1)")),
        ("results", "a vector lacks a number", _run("UPDATE results SET vector = substr(vector, 5)")),
        ("results", "a number differs by less than a float16 shows", _change_a_last_bit),
    ):
        yield Edit(table, "", what, "", make)


def _run(*statements: str) -> Callable[[sqlite3.Connection], None]:
    def make(to: sqlite3.Connection) -> None:
        for statement in statements:
            to.execute(statement)

    return make


def _entries(to: sqlite3.Connection, kind: str = "%") -> list[LedgerEntry]:
    """The entries of the buyer's account, in order."""
    query = f"SELECT {', '.join(ENTRY_FIELDS)} FROM ledger WHERE kind LIKE ? AND account_id = "
    rows = to.execute(f"{query}(SELECT id FROM accounts WHERE name = 'acme') ORDER BY seq", (kind,))
    return [LedgerEntry(**dict(row)) for row in rows]


def _insert(to: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    to.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def _end_at(to: sqlite3.Connection, entry: LedgerEntry) -> None:
    """Make the account's budget agree with its last entry."""
    to.execute(
        "UPDATE budgets SET last_seq = ?, head_hash = ?, used_units = ?, limit_units = ?, last_created_at = ? "
        "WHERE account_id = ? AND api_key_id IS NULL",
        (entry.seq, entry.hash(), entry.used_units, entry.limit_units, entry.created_at, entry.account_id),
    )


def _append(to: sqlite3.Connection, compose: Callable[[ChainEnd, EntryOrigin], LedgerEntry]) -> LedgerEntry:
    last = _entries(to)[-1]
    entry = compose(last.end(last.hash()), EntryOrigin("adm_forged", last.created_at + 1, last.signing_key_id))
    _insert(to, "ledger", entry_row(entry, entry.hash()))
    _end_at(to, entry)
    return entry


def _forge_top_up(to: sqlite3.Connection) -> None:
    _append(to, lambda end, origin: LedgerEntry.top_up(end, origin, 1000, None))


def _forge_logged_top_up(to: sqlite3.Connection) -> None:
    _forge_top_up(to)
    entry = _entries(to)[-1]
    parameters = {"account_id": entry.account_id, "units": 1000, "note": None}
    act = {"request_id": entry.request_id, "act": "top_up", "account_id": entry.account_id, "actor": "cli:alice"}
    act |= {"parameters": canonical_json(parameters).decode(), "outcome": canonical_json({"seq": entry.seq}).decode()}
    _insert(to, "admin_log", act | {"created_at": entry.created_at})


def _forge_charge(to: sqlite3.Connection) -> None:
    model = _entries(to, "charge")[-1]
    terms = ChargeTerms(**{name: getattr(model, name) for name in ChargeTerms.__slots__})
    sold = ChargedItem(item_key("forged"), "0" * 64, 1)
    entry = _append(to, lambda end, origin: LedgerEntry.charge(end, origin, terms, [sold], model.unit_price_micro))
    item = {"account_id": entry.account_id, "item_key": sold.item_key, "seq": entry.seq, "idx": 0, "units": 1}
    _insert(to, "charge_items", item | {"fingerprint": "0" * 64, "result_sha": sold.result_sha})


def _forge_signed_charge(to: sqlite3.Connection) -> None:
    signature = to.execute(f"SELECT signature FROM entry_signatures WHERE {_LAST}").fetchone()[0]
    _forge_charge(to)
    entry = _entries(to)[-1]
    _insert(to, "entry_signatures", {"account_id": entry.account_id, "seq": entry.seq, "signature": signature})


def _rewrite(to: sqlite3.Connection) -> None:
    """The colleague's first charge at ten times its price."""
    dearer, *after = _entries(to)[3:]
    price = dearer.unit_price_micro * 10
    before = replace(dearer, unit_price_micro=price, amount_micro=price * dearer.units)
    rewritten = [before]
    for entry in after:
        before = replace(entry, prev_hash=before.hash())
        rewritten.append(before)
    for entry in rewritten:
        to.execute("DELETE FROM ledger WHERE account_id = ? AND seq = ?", (entry.account_id, entry.seq))
        _insert(to, "ledger", entry_row(entry, entry.hash()))
    _end_at(to, rewritten[-1])


def _cut(last_seq: int) -> Callable[[sqlite3.Connection], None]:
    def make(to: sqlite3.Connection) -> None:
        account_id = _entries(to)[0].account_id
        gone = [entry for entry in _entries(to) if entry.seq > last_seq]
        for entry in gone:
            acts = f"(SELECT id FROM admin_log WHERE request_id = '{entry.request_id}')"
            to.execute(f"DELETE FROM act_signatures WHERE act_id IN {acts}")
            to.execute(f"DELETE FROM admin_log WHERE id IN {acts}")
        items = f"(SELECT item_key FROM charge_items WHERE account_id = '{account_id}' AND seq > {last_seq})"
        to.execute(f"DELETE FROM results WHERE item_key IN {items}")
        for table in ("charge_items", "entry_signatures", "ledger"):
            to.execute(f"DELETE FROM {table} WHERE account_id = '{account_id}' AND seq > {last_seq}")
        _end_at(to, _entries(to)[-1])

    return make


def _replace_trigger(to: sqlite3.Connection) -> None:
    to.execute("CREATE TRIGGER ledger_refuse_update BEFORE UPDATE ON ledger BEGIN SELECT 1; END")


def _forget_signatures(to: sqlite3.Connection) -> None:
    _run("DELETE FROM entry_signatures", "DELETE FROM act_signatures")(to)


def _raise_scopes(to: sqlite3.Connection) -> None:
    act = to.execute("SELECT id, parameters, outcome FROM admin_log WHERE act = 'create_key' ORDER BY id").fetchone()
    raised = canonical_json({**json.loads(act["parameters"]), "scopes": ["admin"]}).decode()
    to.execute("UPDATE admin_log SET parameters = ? WHERE id = ?", (raised, act["id"]))
    to.execute("UPDATE api_keys SET scopes = 'admin' WHERE id = ?", (json.loads(act["outcome"])["api_key_id"],))


def _swap_public_key(to: sqlite3.Connection) -> None:
    other = fixed_signer(9).published_keys[0].public_key
    to.execute("UPDATE signing_keys SET public_key = ? WHERE predecessor_id IS NULL", (other,))


def _change_a_last_bit(to: sqlite3.Connection) -> None:
    for rowid, vector in to.execute("SELECT rowid, vector FROM results").fetchall():
        changed = bytes([vector[0] ^ 1]) + vector[1:]
        if result_sha(unpack_vector(changed)) == result_sha(unpack_vector(vector)):
            to.execute("UPDATE results SET vector = ? WHERE rowid = ?", (changed, rowid))
            return
