"""Every edit of every table of a ledger, made from the schema itself, so that a new table or column is not forgotten.

The editor writes the SQLite file with other tools: no foreign keys, no checks, and the append-only triggers are made
again as they were.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, LargeBinary, Table, UniqueConstraint

from vl2v_vendor.ledger_sql.tables import metadata

Row = dict[str, Any]

_OURS = "account_id = (SELECT id FROM accounts WHERE name = 'acme')"
_KEY = f"(SELECT min(api_key_id) FROM ledger WHERE {_OURS} AND seq = 2)"
_ACTS = (
    "create_account create_key revoke_key set_price ensure_prices top_up refund acknowledge_restore rotate_signing_key"
)

ROWS: dict[str, dict[str, str]] = {
    "accounts": {"the buyer's": "name = 'acme'"},
    "act_signatures": {"an early one": "act_id = 2", "the last": "act_id = (SELECT max(id) FROM admin_log)"},
    "admin_log": {f"`{act}`": f"id = (SELECT max(id) FROM admin_log WHERE act = '{act}')" for act in _ACTS.split()},
    "api_keys": {"the buyer's": f"id = {_KEY}", "one that was revoked": "revoked_at IS NOT NULL"},
    "budgets": {"the account's": f"{_OURS} AND api_key_id IS NULL", "a key's": f"{_OURS} AND api_key_id IS NOT NULL"},
    "charge_items": {"of a charge of the buyer's": f"{_OURS} AND seq = 2 AND idx = 0"},
    "entry_signatures": {"of a charge": f"{_OURS} AND seq = 2", "of the last entry": f"{_OURS} ORDER BY seq DESC"},
    "ledger": {
        "a charge of the buyer's": f"{_OURS} AND seq = 2",
        "a charge of a colleague's": f"{_OURS} AND kind = 'charge' AND api_key_id <> {_KEY}",
        "a top-up": f"{_OURS} AND kind = 'topup' AND seq > 1",
        "a refund": f"{_OURS} AND kind = 'refund'",
        "a restored entry": f"{_OURS} AND kind = 'restored'",
        "the last entry, a top-up": f"{_OURS} ORDER BY seq DESC",
    },
    "prices": {"in force": "id = (SELECT max(id) FROM prices)", "a former one": "modality = 'text'"},
    "results": {"of the buyer's": f"{_OURS}"},
    "signing_keys": {"the first": "predecessor_id IS NULL", "the newest": "predecessor_id IS NOT NULL"},
    "vendor": {"the only one": "id = 1"},
}
"""Rows to be edited, by table and name: the first that a condition finds. Another table's first row is edited."""

_VALUES: dict[str, Callable[[Row], Any]] = {
    "act": lambda row: "top_up" if row["act"] != "top_up" else "refund",
    "currency": lambda _row: "USD",
    "endpoint": lambda _row: "/v1/embeddings/images",
    "kind": lambda row: "topup" if row["kind"] == "charge" else "charge",
    "modality": lambda row: "image" if row["modality"] == "text" else "text",
    "outcome": lambda row: _other_json(row["outcome"]),
    "parameters": lambda row: _other_json(row["parameters"]),
    "scopes": lambda _row: "admin billing embed",
}
"""Valid other values, by column, where those of the type would not do."""


@dataclass(frozen=True)
class Edit:
    """One edit; `column` is empty where it is of a whole row. `make` may find that constraints forbid it."""

    table: str
    row: str
    what: str
    column: str
    make: Callable[[sqlite3.Connection], None]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What names the edit in the table of who notices."""
        return self.table, self.row, self.what, self.column


def all_edits(connection: sqlite3.Connection) -> Iterator[Edit]:
    """Yield every edit of a prepared ledger; raises LookupError where it has no row to be edited."""
    for table in sorted(metadata.tables.values(), key=lambda one: one.name):
        for name, condition in ROWS.get(table.name, {"the first": "1"}).items():
            row = _find(connection, table, condition)
            for column in table.columns:
                yield from _settings(table, name, row, column)
            yield Edit(table.name, name, "deleted", "", lambda to, table=table, row=row: _delete(to, table, row))
            yield Edit(table.name, name, "copied", "", lambda to, table=table, row=row: _copy(to, table, row))
        first, condition = next(iter(ROWS.get(table.name, {"the first": "1"}).items()))
        row = _find(connection, table, condition)
        for column in table.columns:
            yield from _swaps(connection, table, first, row, column)


def edit(path: Path, make: Callable[[sqlite3.Connection], None]) -> None:
    """Make a change in a database file, with its triggers out of the way and then as they were.

    Raises:
        sqlite3.IntegrityError: A primary key or unique constraint forbids it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("BEGIN IMMEDIATE")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        try:
            make(connection)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK")
            raise
        present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
        for name, made in triggers:
            if name not in present:
                connection.execute(made)
        connection.execute("COMMIT")


def _find(connection: sqlite3.Connection, table: Table, condition: str) -> Row:
    found = connection.execute(f"SELECT * FROM {table.name} WHERE {condition} LIMIT 1").fetchone()
    if found is None:
        raise LookupError(f"the prepared ledger has no row of {table.name} where {condition}: give it one")
    return dict(found)


def _settings(table: Table, name: str, row: Row, column: Column[Any]) -> Iterator[Edit]:
    def make(to: sqlite3.Connection) -> None:
        _set_to_first(to, table, row, column, _other_values(to, table, row, column))

    yield Edit(table.name, name, "changed", column.name, make)
    if column.nullable and row[column.name] is not None:
        yield Edit(
            table.name, name, "emptied", column.name, lambda to: _set_to_first(to, table, row, column, iter([None]))
        )


def _swaps(connection: sqlite3.Connection, table: Table, name: str, row: Row, column: Column[Any]) -> Iterator[Edit]:
    """Swap a column's value with another row's, of the same account where there is one."""
    query = f"SELECT * FROM {table.name} WHERE {column.name} IS NOT ? ORDER BY rowid"
    others = [dict(one) for one in connection.execute(query, (row[column.name],))]
    if others:
        other = max(others, key=lambda one: sum(one[key] == row[key] for key in ("account_id", "kind") if key in row))
        yield Edit(table.name, name, "swapped", column.name, lambda to: _swap(to, table, column.name, row, other))


def _swap(to: sqlite3.Connection, table: Table, column: str, row: Row, other: Row) -> None:
    places = [_rowid(to, table, one) for one in (row, other)]
    for place, value in ((places[0], "\0"), (places[1], row[column]), (places[0], other[column])):
        value = -1 if value == "\0" and isinstance(row[column], int) else value
        to.execute(f"UPDATE {table.name} SET {column} = ? WHERE rowid = ?", (value, place))


def _delete(to: sqlite3.Connection, table: Table, row: Row) -> None:
    to.execute(f"DELETE FROM {table.name} WHERE rowid = ?", (_rowid(to, table, row),))


def _copy(to: sqlite3.Connection, table: Table, row: Row) -> None:
    """Insert the row under another primary key, and another value of each unique column."""
    copied = dict(row)
    unique = [list(one.columns) for one in table.constraints if isinstance(one, UniqueConstraint)]
    unique += [list(one.columns) for one in table.indexes if one.unique]
    for columns in (list(table.primary_key.columns), *unique):
        column = columns[-1]
        if copied[column.name] == row[column.name] and row[column.name] is not None:
            copied[column.name] = list(_other_values(to, table, row, column))[-1]
    marks = ", ".join("?" * len(copied))
    to.execute(f"INSERT INTO {table.name} ({', '.join(copied)}) VALUES ({marks})", list(copied.values()))


def _set_to_first(to: sqlite3.Connection, table: Table, row: Row, column: Column[Any], values: Iterator[Any]) -> None:
    """Set the column to the first of the values that the constraints admit."""
    refusal: sqlite3.IntegrityError | None = None
    for value in values:
        try:
            to.execute(f"UPDATE {table.name} SET {column.name} = ? WHERE rowid = ?", (value, _rowid(to, table, row)))
            return
        except sqlite3.IntegrityError as error:
            refusal = error
    raise refusal or sqlite3.IntegrityError("no other value")


def _rowid(to: sqlite3.Connection, table: Table, row: Row) -> int:
    keys = [column.name for column in table.primary_key.columns]
    where = " AND ".join(f"{key} = ?" for key in keys)
    return int(to.execute(f"SELECT rowid FROM {table.name} WHERE {where}", [row[key] for key in keys]).fetchone()[0])


def _other_values(to: sqlite3.Connection, table: Table, row: Row, column: Column[Any]) -> Iterator[Any]:
    """Yield valid other values of a column; the last is one that no row has."""
    value = row[column.name]
    targets = [(key.column.table.name, key.column.name) for key in column.foreign_keys]
    if not targets and column.name == "account_id":
        targets = [("accounts", "id")]
    for there, key in targets:
        yield from (
            one[0] for one in to.execute(f"SELECT {key} FROM {there} WHERE {key} IS NOT ? ORDER BY rowid", (value,))
        )
        if column.name != "seq":
            return
    if column.name in _VALUES:
        yield _VALUES[column.name](row)
    elif isinstance(column.type, LargeBinary):
        yield value[:3] + bytes([value[3] ^ 0x80]) + value[4:]  # the first number's sign
    elif column.type.python_type is int:
        yield 1 if value is None else value + 1
        yield (to.execute(f"SELECT max({column.name}) FROM {table.name}").fetchone()[0] or 0) + 1
    elif not value:
        yield "other"
    else:
        yield _other_text(value)


def _other_text(text: str) -> str:
    """Another text of the same form: one hexadecimal digit or letter differs."""
    first = text[0]
    return ("1" if first == "0" else "0" if first.isdigit() else "b" if first == "a" else "a") + text[1:]


def _other_json(text: str) -> str:
    """The canonical JSON of an object of which the last value differs."""
    found = json.loads(text)
    if not found:
        return '{"other":1}'
    name, value = list(found.items())[-1]
    found[name] = value + 1 if isinstance(value, int) else f"{value} other" if value is None else _other_of(value)
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def _other_of(value: Any) -> Any:
    return _other_text(value) if isinstance(value, str) and value else [*value, "admin"]
