"""The statements of a sale, written once: to construct one takes SQLAlchemy longer than SQLite takes to answer it.

Those of a charge are also compiled once per database to plain text with named parameters. The writer hands them to the
driver itself, since SQLAlchemy's execution layer too takes its time over each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

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
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect

from vl2v_vendor.ledger_sql.database import database_clock
from vl2v_vendor.ledger_sql.driver import RowInsert, compile_text
from vl2v_vendor.ledger_sql.rows import KEY_COLUMNS, PRICE_COLUMNS
from vl2v_vendor.ledger_sql.tables import accounts, api_keys, budgets, charge_items, ledger, prices, results


@dataclass(frozen=True, slots=True)
class ChargeStatements:
    """Compiled text of each step's statement for one `backend`; the parameters' names are those of the columns.

    Attributes:
        probe: Write that changes nothing; None where the database says itself whether it can be written.
        read_state: Whether the database is read-only, and its clock in microseconds; None where the process knows both.
        lock_account: Advisory lock that queues in order of arrival; None where writers queue for the whole database.
        shorten_lock_timeout: Shorter wait for locks in this transaction; None where a writer holds all.
    """

    backend: str
    probe: str | None
    read_state: str | None
    lock_account: str | None
    shorten_lock_timeout: str | None
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
            read_state=compile_text(_read_state(), dialect) if dialect.name == "postgresql" else None,
            lock_account=compile_text(lock_account(), dialect) if dialect.name == "postgresql" else None,
            shorten_lock_timeout="SET LOCAL lock_timeout = '50ms'" if dialect.name == "postgresql" else None,
            lock_budgets=compile_text(lock_budgets(dialect.name), dialect),
            read_keys=compile_text(_read_keys(dialect.name), dialect),
            price_in_force=compile_text(price_in_force(), dialect),
            paid_items=compile_text(paid_items(dialect.name), dialect),
            debit_account=compile_text(_debit_account(), dialect),
            debit_key=compile_text(_debit_key(), dialect),
            insert_entries=RowInsert.into(ledger, dialect),
            insert_items=RowInsert.into(charge_items, dialect),
            insert_results=RowInsert.into(results, dialect),
        )


def _read_state() -> Select[Any]:
    read_only = func.current_setting(literal_column("'transaction_read_only'"))
    return select(read_only, database_clock())


def lock_account() -> Select[Any]:
    """Queue for an account on PostgreSQL until the transaction ends.

    Advisory locks are granted in order of arrival. Row locks are not: whoever asks at the moment of a commit overtakes
    those who wait, and the waits of a busy account grow a long tail.
    """
    return select(
        func.pg_advisory_xact_lock(func.hashtextextended(bindparam("account_id", type_=Text), literal_column("0")))
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
            or_(budgets.c.api_key_id.is_(None), _in_array(budgets.c.api_key_id, "api_key_ids", backend)),
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
            _in_array(api_keys.c.id, "api_key_ids", backend),
            api_keys.c.account_id == bindparam("account_id"),
        )
    )


@cache
def key_by_secret() -> Select[Any]:
    """The API key whose secret has the hash `secret_sha256`."""
    return (
        select(*KEY_COLUMNS)
        .join(accounts, accounts.c.id == api_keys.c.account_id)
        .where(api_keys.c.secret_sha256 == bindparam("secret_sha256"))
    )


@cache
def budgets_of() -> Select[Any]:
    """The budgets of `account_id`: its own, which has no API key, and that of the key `api_key_id`, if there is one."""
    return select(budgets.c.api_key_id, budgets.c.limit_units, budgets.c.used_units).where(
        budgets.c.account_id == bindparam("account_id"),
        or_(budgets.c.api_key_id.is_(None), budgets.c.api_key_id == bindparam("api_key_id")),
    )


@cache
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


@cache
def paid_items(backend: str) -> Select[Any]:
    """Those of `item_keys` that the account paid for, each with its entry's model and its vector, if still kept.

    The keys are one parameter: see `array_parameter`.
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
        return paid.where(_in_array(charge_items.c.item_key, "item_keys", backend))
    # Key by key, since a planner without statistics would rather walk through the account's whole ledger.
    item_keys = func.unnest(bindparam("item_keys", type_=ARRAY(Text)))
    wanted = item_keys.table_valued("item_key", name="wanted").render_derived()
    found = paid.where(charge_items.c.item_key == wanted.c.item_key).limit(literal_column("1")).lateral("found")
    return select(found).select_from(wanted.join(found, true()))


def array_parameter(values: Iterable[str], backend: str) -> object:
    """The value of a parameter that lists strings: an array on PostgreSQL, JSON text on SQLite."""
    if backend == "postgresql":
        return list(values)
    return json.dumps(list(values))


def _in_array(column: ColumnElement[Any], parameter: str, backend: str) -> ColumnElement[bool]:
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
