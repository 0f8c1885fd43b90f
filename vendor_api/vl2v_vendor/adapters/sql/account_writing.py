"""New rows of accounts, API keys and budgets, inside the transaction of the act that asks for them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, insert

from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import GENESIS_HASH
from vl2v_vendor.adapters.sql.tables import accounts, api_keys, budgets
from vl2v_vendor.domain.accounts import (
    MAX_KEY_NAME_LENGTH,
    Scope,
    check_scopes,
    check_text,
    generate_secret,
    secret_prefix,
    secret_sha256,
)
from vl2v_vendor.domain.errors import InvalidRequest

_MICRO = 1_000_000
_MAX_LIFETIME_SECONDS = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a new API key may do, and for how long; see `Accounts.create_key`."""

    scopes: frozenset[Scope]
    limit_units: int | None
    expires_at: int | None
    lifetime_seconds: int | None
    name: str

    def check(self) -> None:
        """Check the terms.

        Raises:
            InvalidRequest: There is an unknown scope, no scope, or a name, budget or lifetime out of range.
        """
        check_scopes(self.scopes)
        check_text("a key's name", self.name, MAX_KEY_NAME_LENGTH)
        if self.limit_units is not None and not 0 <= self.limit_units <= MAX_INTEGER:
            raise InvalidRequest(f"a key budget of {self.limit_units} queries is out of range")
        if self.lifetime_seconds is not None and not 0 < self.lifetime_seconds <= _MAX_LIFETIME_SECONDS:
            raise InvalidRequest(
                f"a key cannot expire after {self.lifetime_seconds} seconds; give more than 0, and less than 100 years"
            )


def insert_account(connection: Connection, name: str, currency: str, now: int) -> str:
    """Insert a new account with an empty budget; returns its id."""
    account_id = f"acct_{secrets.token_hex(6)}"
    row = {"id": account_id, "name": name, "currency": currency, "created_at": now}
    connection.execute(insert(accounts).values(row))
    _insert_budget(connection, account_id, None, 0, now)
    return account_id


def insert_key(connection: Connection, account_id: str, terms: KeyTerms, now: int) -> tuple[str, str]:
    """Insert a new API key, with its own budget if the terms name one; returns its id and its secret."""
    key_id, secret = f"key_{secrets.token_hex(6)}", generate_secret()
    lifetime_seconds = terms.lifetime_seconds
    row = {
        "id": key_id,
        "account_id": account_id,
        "name": terms.name,
        "prefix": secret_prefix(secret),
        "secret_sha256": secret_sha256(secret),
        "scopes": " ".join(sorted(terms.scopes)),
        "created_at": now,
        "expires_at": terms.expires_at if lifetime_seconds is None else now + lifetime_seconds * _MICRO,
    }
    connection.execute(insert(api_keys).values(row))
    if terms.limit_units is not None:
        _insert_budget(connection, account_id, key_id, terms.limit_units, now)
    return key_id, secret


def _insert_budget(connection: Connection, account_id: str, api_key_id: str | None, limit_units: int, now: int) -> None:
    row = {
        "account_id": account_id,
        "api_key_id": api_key_id,
        "limit_units": limit_units,
        "used_units": 0,
        "last_seq": 0,
        "head_hash": GENESIS_HASH,
        "last_created_at": now,
    }
    connection.execute(insert(budgets).values(row))
