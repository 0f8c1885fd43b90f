"""The statements of a sale, and its rows as the domain has them.

Each is written once: to construct one takes SQLAlchemy longer than SQLite takes to answer it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
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
)
from sqlalchemy.dialects.postgresql import ARRAY

from vl2v_contract.chain import ChainEnd, LedgerEntry
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.ledger import PaidItem, Vector
from vl2v_vendor.ledger_sql.tables import (
    accounts,
    api_keys,
    budgets,
    charge_items,
    entry_signatures,
    ledger,
    prices,
    results,
    signing_keys,
)

ENTRY_FIELDS = tuple(field.name for field in fields(LedgerEntry))
ENTRY_COLUMNS: tuple[Column[Any], ...] = (*(ledger.c[name] for name in ENTRY_FIELDS), ledger.c.entry_hash)

LOCK_ACCOUNT = select(
    func.pg_advisory_xact_lock(func.hashtextextended(bindparam("account_id", type_=Text), literal_column("0")))
)
"""Queue for an account on PostgreSQL until the transaction ends.

Advisory locks are granted in order of arrival. Row locks are not: whoever asks at the moment of a commit overtakes
those who wait, and the waits of a busy account grow a long tail.
"""

KEYS = select(
    api_keys.c.id,
    api_keys.c.account_id,
    accounts.c.name.label("account_name"),
    api_keys.c.prefix,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.revoked_at,
    api_keys.c.name,
).join(accounts, accounts.c.id == api_keys.c.account_id)
"""All API keys, for `to_key`."""

KEY_BY_SECRET = KEYS.where(api_keys.c.secret_sha256 == bindparam("secret_sha256"))

PUBLISHED_KEYS = select(signing_keys).order_by(signing_keys.c.created_at, signing_keys.c.predecessor_id.nulls_first())
"""The public signing keys, oldest first."""

PRICE_IN_FORCE = (
    select(*prices.c)
    .where(prices.c.model_id == bindparam("model_id"), prices.c.modality == bindparam("modality"))
    .order_by(prices.c.id.desc())
)
"""The prices of a model's modality, newest first: the first row is in force, whatever a clock that was set says."""


_HEAD_SIGNATURE = (
    select(entry_signatures.c.signature)
    .where(entry_signatures.c.account_id == budgets.c.account_id, entry_signatures.c.seq == budgets.c.last_seq)
    .scalar_subquery()
)


@cache
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
            _HEAD_SIGNATURE.label("head_signature"),
        )
        .join(accounts, accounts.c.id == budgets.c.account_id)
        .where(
            budgets.c.account_id == bindparam("account_id"),
            or_(budgets.c.api_key_id.is_(None), in_array(budgets.c.api_key_id, "api_key_ids", backend)),
        )
        .order_by(budgets.c.api_key_id.nulls_first())
        .with_for_update(of=budgets)
    )


@cache
def paid_items(backend: str) -> Select[Any]:
    """Find those of `item_keys` that the account paid for, each with its entry's model and its vector, if still kept.

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
        return paid.where(in_array(charge_items.c.item_key, "item_keys", backend))
    # Key by key, since a planner without statistics would rather walk through the account's whole ledger.
    item_keys = func.unnest(bindparam("item_keys", type_=ARRAY(Text)))
    wanted = item_keys.table_valued("item_key", name="wanted").render_derived()
    found = paid.where(charge_items.c.item_key == wanted.c.item_key).limit(literal_column("1")).lateral("found")
    return select(found).select_from(wanted.join(found, true()))


def array_parameter(values: Iterable[str], backend: str) -> object:
    """Return a parameter that lists strings: an array on PostgreSQL, JSON text on SQLite."""
    return list(values) if backend == "postgresql" else json.dumps(list(values))


def in_array(column: ColumnElement[Any], parameter: str, backend: str) -> ColumnElement[bool]:
    """Ask whether a column is among the strings of a parameter; the text does not depend on their number."""
    if backend == "postgresql":
        return column == any_(bindparam(parameter, type_=ARRAY(Text)))
    values = func.json_each(bindparam(parameter, type_=Text)).table_valued("value")
    return column.in_(select(values.c.value))


def entry_row(entry: LedgerEntry, entry_hash: str) -> dict[str, Any]:
    """Return the ledger row of an entry."""
    return {name: getattr(entry, name) for name in ENTRY_FIELDS} | {"entry_hash": entry_hash}


def to_entry(row: Sequence[Any]) -> tuple[LedgerEntry, str]:
    """Return the entry and its stored hash from `ENTRY_COLUMNS`; nothing is checked."""
    return LedgerEntry(**dict(zip(ENTRY_FIELDS, row, strict=False))), row[-1]


def to_chain_end(ledger_id: str, account_id: str, row: Sequence[Any]) -> ChainEnd:
    """Return the end of an account's chain from its own row of `lock_budgets`."""
    _, _, limit_units, used_units, last_seq, head_hash, last_created_at, currency, _ = row
    return ChainEnd(
        ledger_id=ledger_id,
        account_id=account_id,
        currency=currency,
        seq=last_seq,
        entry_hash=head_hash,
        used_units=used_units,
        limit_units=limit_units,
        created_at=last_created_at,
    )


def to_key(row: Sequence[Any]) -> ApiKey:
    """Return the API key of a row of `KEYS`."""
    key_id, account_id, account_name, prefix, scopes, *rest = row
    return ApiKey(key_id, account_id, account_name, prefix, frozenset(scopes.split()), *rest)


def to_paid_item(row: Sequence[Any]) -> PaidItem:
    """Return the paid item of a row of `paid_items`; the last column is the vector's bytes or null."""
    *terms, kept = row
    return PaidItem(*[*terms, None if kept is None else unpack_vector(kept)])


def pack_vector(vector: Vector) -> bytes:
    """Return a `[D]` float32 vector as `4 * D` little-endian bytes."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack_vector(data: bytes) -> Vector:
    """Return `4 * D` little-endian bytes as a read-only `[D]` float32 array."""
    return np.frombuffer(data, dtype="<f4")
