"""The statements of a charge, written once and compiled once per database to plain text with named parameters.

The writer hands them to the driver's own cursor: an order costs some nine statements, and SQLAlchemy's execution
layer would take longer over each than SQLite does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect

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


@dataclass(frozen=True, slots=True)
class ChargeStatements:
    """Compiled text of each step's statement for one `backend`; the parameters' names are those of the columns."""

    backend: str
    lock_budgets: str
    read_key: str
    price_in_force: str
    paid_items: str
    debit_account: str
    debit_key: str
    insert_entry: str
    insert_item: str
    insert_result: str

    @classmethod
    def compile(cls, dialect: Dialect) -> ChargeStatements:
        """The statements in the text of one database."""
        return cls(
            backend=dialect.name,
            lock_budgets=_compile(lock_budgets(), dialect),
            read_key=_compile(read_key(), dialect),
            price_in_force=_compile(price_in_force(), dialect),
            paid_items=_compile(paid_items(dialect.name), dialect),
            debit_account=_compile(_debit_account(), dialect),
            debit_key=_compile(_debit_key(), dialect),
            insert_entry=_compile(insert(ledger), dialect),
            insert_item=_compile(insert(charge_items), dialect),
            insert_result=_compile(insert(results), dialect),
        )


def lock_budgets() -> Select[Any]:
    """Lock the account's row, then the key's if it has one; the account's comes first."""
    return (
        select(
            budgets.c.id,
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
            or_(budgets.c.api_key_id.is_(None), budgets.c.api_key_id == bindparam("api_key_id")),
        )
        .order_by(budgets.c.api_key_id.nulls_first())
        .with_for_update(of=budgets)
    )


def read_key() -> Select[Any]:
    """The API key of an account."""
    return (
        select(*KEY_COLUMNS)
        .join(accounts, accounts.c.id == api_keys.c.account_id)
        .where(api_keys.c.id == bindparam("api_key_id"), api_keys.c.account_id == bindparam("account_id"))
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

    The keys are one parameter, so that the text does not depend on their number: see `key_list`.
    """
    kept = and_(
        results.c.account_id == charge_items.c.account_id,
        results.c.item_key == charge_items.c.item_key,
        results.c.expires_at > bindparam("now", type_=BigInteger),
    )
    entry = and_(ledger.c.account_id == charge_items.c.account_id, ledger.c.seq == charge_items.c.seq)
    return (
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
        .where(charge_items.c.account_id == bindparam("account_id"), _is_listed(backend))
    )


def key_list(item_keys: Sequence[str], backend: str) -> object:
    """The value of the parameter `item_keys`: an array on PostgreSQL, JSON text on SQLite."""
    if backend == "postgresql":
        return list(item_keys)
    return json.dumps(list(item_keys))


def _is_listed(backend: str) -> ColumnElement[bool]:
    if backend == "postgresql":
        return charge_items.c.item_key == any_(bindparam("item_keys", type_=ARRAY(Text)))
    listed = func.json_each(bindparam("item_keys", type_=Text)).table_valued("value")
    return charge_items.c.item_key.in_(select(listed.c.value))


def _debit_account() -> Executable:
    """Guarded twice: by the budget, and by the place in the chain that the entry was hashed for."""
    return (
        update(budgets)
        .where(
            budgets.c.id == bindparam("budget_id"),
            budgets.c.limit_units - budgets.c.used_units >= bindparam("units", type_=BigInteger),
            budgets.c.last_seq == bindparam("last_seq", type_=BigInteger),
        )
        .values(
            used_units=budgets.c.used_units + bindparam("units", type_=BigInteger),
            last_seq=bindparam("seq", type_=BigInteger),
            head_hash=bindparam("entry_hash"),
            last_created_at=bindparam("entry_created_at", type_=BigInteger),
        )
    )


def _debit_key() -> Executable:
    return (
        update(budgets)
        .where(
            budgets.c.id == bindparam("budget_id"),
            budgets.c.limit_units - budgets.c.used_units >= bindparam("units", type_=BigInteger),
        )
        .values(used_units=budgets.c.used_units + bindparam("units", type_=BigInteger))
    )


def _compile(statement: Any, dialect: Dialect) -> str:
    # The driver's usual `?` would tie each statement to the order of its parameters.
    by_name = sqlite.dialect(paramstyle="named") if dialect.name == "sqlite" else dialect
    return str(statement.compile(dialect=by_name))
