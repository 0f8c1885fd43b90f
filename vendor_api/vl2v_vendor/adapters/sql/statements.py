"""The statements of a charge, written once and compiled once per database to plain text with named parameters.

The writer hands them to the driver's own cursor: SQLAlchemy's execution layer would take longer over each than SQLite
does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from vl2v_vendor.adapters.sql.rows import KEY_COLUMNS, PRICE_COLUMNS
from vl2v_vendor.adapters.sql.tables import accounts, api_keys, budgets, charge_items, ledger, prices, results


class Cursor(Protocol):
    """What is used of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""

    def execute(self, statement: str, parameters: Mapping[str, Any] = ..., /) -> Any:
        """Run a statement."""

    def executemany(self, statement: str, parameters: Sequence[Mapping[str, Any]], /) -> Any:
        """Run a statement once for each set of parameters."""

    def fetchone(self) -> Any:
        """The next row or None."""

    def fetchall(self) -> Sequence[Any]:
        """All rows that are left."""


class CopyingCursor(Cursor, Protocol):
    """What psycopg's cursor has beside it."""

    def copy(self, statement: str, /) -> AbstractContextManager[Any]:
        """Begin a `COPY`, whose rows are written to what this opens."""


@dataclass(frozen=True, slots=True)
class RowInsert:
    """Inserting many rows at once; PostgreSQL takes them by binary `COPY`, at a fifth of the cost of an INSERT each.

    Attributes:
        statement: an INSERT for one row, or a COPY for all.
        columns: in the table's order.
        types: PostgreSQL's names of their types; empty for an INSERT.
    """

    statement: str
    columns: tuple[str, ...]
    types: tuple[str, ...]

    @classmethod
    def into(cls, table: Table, dialect: Dialect) -> RowInsert:
        """Into all columns of a table."""
        columns = tuple(column.name for column in table.columns)
        if dialect.name != "postgresql":
            return cls(_compile(insert(table), dialect), columns, ())
        statement = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        return cls(statement, columns, tuple(_COPY_TYPES[type(column.type)] for column in table.columns))

    def run(self, cursor: Cursor, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that name every column."""
        if not self.types:
            cursor.executemany(self.statement, rows)
            return
        with cast("CopyingCursor", cursor).copy(self.statement) as copy:
            copy.set_types(self.types)
            for row in rows:
                copy.write_row([row[name] for name in self.columns])


_COPY_TYPES: dict[type[TypeEngine[Any]], str] = {
    BigInteger: "int8",
    Integer: "int4",
    LargeBinary: "bytea",
    String: "text",
    Text: "text",
}


@dataclass(frozen=True, slots=True)
class ChargeStatements:
    """Compiled text of each step's statement for one `backend`; the parameters' names are those of the columns.

    Attributes:
        probe: a write that changes nothing; None where the database says itself whether it can be written.
        lose_patience: shortens the wait for locks in this transaction; None where a writer holds the whole database.
    """

    backend: str
    probe: str | None
    lose_patience: str | None
    lock_budgets: str
    read_keys: str
    price_in_force: str
    paid_items: str
    debit_account: str
    debit_key: str
    insert_entries: RowInsert
    insert_items: RowInsert
    insert_results: RowInsert

    @classmethod
    def compile(cls, dialect: Dialect) -> ChargeStatements:
        """The statements in the text of one database."""
        return cls(
            backend=dialect.name,
            probe=None if dialect.name == "postgresql" else "PRAGMA user_version = 0",
            lose_patience="SET LOCAL lock_timeout = '50ms'" if dialect.name == "postgresql" else None,
            lock_budgets=_compile(lock_budgets(dialect.name), dialect),
            read_keys=_compile(_read_keys(dialect.name), dialect),
            price_in_force=_compile(price_in_force(), dialect),
            paid_items=_compile(paid_items(dialect.name), dialect),
            debit_account=_compile(_debit_account(), dialect),
            debit_key=_compile(_debit_key(), dialect),
            insert_entries=RowInsert.into(ledger, dialect),
            insert_items=RowInsert.into(charge_items, dialect),
            insert_results=RowInsert.into(results, dialect),
        )


def lock_budgets(backend: str) -> Select[Any]:
    """Lock the account's row, then those of the API keys `api_key_ids` that have one; the account's comes first."""
    return (
        select(
            budgets.c.id,
            budgets.c.api_key_id,
            budgets.c.limit_units,
            budgets.c.used_units,
            budgets.c.last_seq,
            budgets.c.head_hash,
            budgets.c.last_created_at,
            accounts.c.currency,
        )
        .join(accounts, accounts.c.id == budgets.c.account_id)
        .where(
            budgets.c.account_id == bindparam("account_id"),
            or_(budgets.c.api_key_id.is_(None), _is_listed(budgets.c.api_key_id, "api_key_ids", backend)),
        )
        .order_by(budgets.c.api_key_id.nulls_first())
        .with_for_update(of=budgets)
    )


def _read_keys(backend: str) -> Select[Any]:
    """Those of the API keys `api_key_ids` that the account has."""
    return (
        select(*KEY_COLUMNS)
        .join(accounts, accounts.c.id == api_keys.c.account_id)
        .where(
            _is_listed(api_keys.c.id, "api_key_ids", backend),
            api_keys.c.account_id == bindparam("account_id"),
        )
    )


def price_in_force() -> Select[Any]:
    """The prices of a model's modality, newest first: the first row is in force, whatever a clock that was set says."""
    return (
        select(*PRICE_COLUMNS)
        .where(
            prices.c.model_id == bindparam("model_id"),
            prices.c.modality == bindparam("modality"),
        )
        .order_by(prices.c.id.desc())
    )


def paid_items(backend: str) -> Select[Any]:
    """Those of `item_keys` that the account paid for, each with its entry's model and its vector, if still kept.

    The keys are one parameter: see `listed`.
    """
    kept = and_(
        results.c.account_id == charge_items.c.account_id,
        results.c.item_key == charge_items.c.item_key,
        results.c.expires_at > bindparam("now", type_=BigInteger),
    )
    entry = and_(ledger.c.account_id == charge_items.c.account_id, ledger.c.seq == charge_items.c.seq)
    paid = (
        select(
            charge_items.c.item_key,
            charge_items.c.seq,
            charge_items.c.fingerprint,
            charge_items.c.result_sha,
            ledger.c.model_id,
            ledger.c.weights_sha,
            ledger.c.precision,
            ledger.c.preprocessing_id,
            results.c.vector,
        )
        .select_from(charge_items.join(ledger, entry).outerjoin(results, kept))
        .where(charge_items.c.account_id == bindparam("account_id"))
    )
    if backend != "postgresql":
        return paid.where(_is_listed(charge_items.c.item_key, "item_keys", backend))
    # Key by key, since a planner without statistics would rather walk through the account's whole ledger.
    item_keys = func.unnest(bindparam("item_keys", type_=ARRAY(Text)))
    wanted = item_keys.table_valued("item_key", name="wanted").render_derived()
    found = paid.where(charge_items.c.item_key == wanted.c.item_key).limit(literal_column("1")).lateral("found")
    return select(found).select_from(wanted.join(found, true()))


def listed(values: Iterable[str], backend: str) -> object:
    """The value of a parameter that lists strings: an array on PostgreSQL, JSON text on SQLite."""
    if backend == "postgresql":
        return list(values)
    return json.dumps(list(values))


def _is_listed(column: ColumnElement[Any], parameter: str, backend: str) -> ColumnElement[bool]:
    """Whether the column is among the strings of a parameter, so that the text does not depend on their number."""
    if backend == "postgresql":
        return column == any_(bindparam(parameter, type_=ARRAY(Text)))
    values = func.json_each(bindparam(parameter, type_=Text)).table_valued("value")
    return column.in_(select(values.c.value))


def _debit_account() -> Executable:
    return (
        update(budgets)
        .where(
            budgets.c.id == bindparam("budget_id"),
            budgets.c.limit_units >= bindparam("used_units", type_=BigInteger),
            budgets.c.last_seq == bindparam("read_last_seq", type_=BigInteger),
        )
        .values(
            used_units=bindparam("used_units", type_=BigInteger),
            last_seq=bindparam("last_seq", type_=BigInteger),
            head_hash=bindparam("head_hash"),
            last_created_at=bindparam("last_created_at", type_=BigInteger),
        )
    )


def _debit_key() -> Executable:
    return (
        update(budgets)
        .where(
            budgets.c.id == bindparam("budget_id"),
            budgets.c.limit_units >= bindparam("used_units", type_=BigInteger),
            budgets.c.used_units == bindparam("read_used_units", type_=BigInteger),
        )
        .values(used_units=bindparam("used_units", type_=BigInteger))
    )


def _compile(statement: Any, dialect: Dialect) -> str:
    # The driver's usual `?` would tie each statement to the order of its parameters.
    by_name = sqlite.dialect(paramstyle="named") if dialect.name == "sqlite" else dialect
    return str(statement.compile(dialect=by_name))
