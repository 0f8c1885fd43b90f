"""Between rows and what the domain deals in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
from sqlalchemy import Column, ColumnElement

from vl2v_contract.chain import ChainEnd, LedgerEntry
from vl2v_vendor.domain.accounts import Account, ApiKey, Budget, Scope
from vl2v_vendor.domain.ledger import PaidItem, Price, Vector
from vl2v_vendor.ledger_sql.tables import accounts, api_keys, budgets, ledger, prices

ENTRY_FIELDS = tuple(field.name for field in fields(LedgerEntry))
ENTRY_COLUMNS: tuple[Column[Any], ...] = (*(ledger.c[name] for name in ENTRY_FIELDS), ledger.c.entry_hash)

KEY_COLUMNS: tuple[ColumnElement[Any], ...] = (
    api_keys.c.id,
    api_keys.c.account_id,
    accounts.c.name.label("account_name"),
    api_keys.c.prefix,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.revoked_at,
    api_keys.c.name,
)

PRICE_COLUMNS: tuple[Column[Any], ...] = tuple(prices.c)

ACCOUNT_COLUMNS: tuple[Column[Any], ...] = (
    accounts.c.id,
    accounts.c.name,
    accounts.c.currency,
    accounts.c.created_at,
    budgets.c.limit_units,
    budgets.c.used_units,
)

_FLOAT32 = np.dtype("<f4")


def entry_row(entry: LedgerEntry, entry_hash: str) -> dict[str, Any]:
    """Return the ledger row of an entry."""
    row = {name: getattr(entry, name) for name in ENTRY_FIELDS}
    row["entry_hash"] = entry_hash
    return row


def to_entry(row: Sequence[Any]) -> tuple[LedgerEntry, str]:
    """Return the entry and its stored hash from `ENTRY_COLUMNS`; nothing is checked."""
    return LedgerEntry(**dict(zip(ENTRY_FIELDS, row, strict=False))), row[-1]


def to_chain_end(ledger_id: str, account_id: str, row: Sequence[Any]) -> ChainEnd:
    """Return the end of an account's chain from its own row of `statements.lock_budgets`."""
    _, _, limit_units, used_units, last_seq, head_hash, last_created_at, currency = row
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
    """Return the API key of `KEY_COLUMNS`."""
    key_id, account_id, account_name, prefix, scopes, created_at, expires_at, revoked_at, name = row
    granted = cast("frozenset[Scope]", frozenset(scopes.split()))
    return ApiKey(key_id, account_id, account_name, prefix, granted, created_at, expires_at, revoked_at, name)


def to_price(row: Sequence[Any]) -> Price:
    """Return the price of `PRICE_COLUMNS`."""
    return Price(*row)


def to_account(row: Sequence[Any]) -> Account:
    """Return the account of `ACCOUNT_COLUMNS`."""
    account_id, name, currency, created_at, limit_units, used_units = row
    return Account(account_id, name, currency, created_at, Budget(limit_units, used_units))


def to_paid_item(row: Sequence[Any]) -> PaidItem:
    """Return the paid item of `statements.paid_items`; the last column is the vector's bytes or null."""
    item_key, seq, fingerprint, result_sha, model_id, weights_sha, precision, preprocessing_id, kept = row
    vector = None if kept is None else unpack_vector(kept)
    return PaidItem(item_key, seq, fingerprint, result_sha, model_id, weights_sha, precision, preprocessing_id, vector)


def pack_vector(vector: Vector) -> bytes:
    """`[D]` float32 to `4 * D` little-endian bytes."""
    return np.ascontiguousarray(vector, dtype=_FLOAT32).tobytes()


def unpack_vector(data: bytes) -> Vector:
    """`4 * D` little-endian bytes to a read-only `[D]` float32 array."""
    return np.frombuffer(data, dtype=_FLOAT32)
