"""Rows of accounts, API keys and budgets as the staff read and make them, on the connection of one transaction."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, insert, or_, select

from vl2v_contract.chain import GENESIS_HASH
from vl2v_contract.identity import MAX_INTEGER
from vl2v_vendor.domain.accounts import (
    MAX_KEY_NAME_LENGTH,
    Account,
    ApiKey,
    Budget,
    Scope,
    check_scopes,
    check_text,
    generate_secret,
    secret_prefix,
    secret_sha256,
)
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.ledger_sql.rows import ACCOUNT_COLUMNS, KEY_COLUMNS, to_account, to_key
from vl2v_vendor.ledger_sql.tables import accounts, api_keys, budgets

_ACCOUNTS = (
    select(*ACCOUNT_COLUMNS).join(budgets, budgets.c.account_id == accounts.c.id).where(budgets.c.api_key_id.is_(None))
)
_KEYS = select(*KEY_COLUMNS).join(accounts, accounts.c.id == api_keys.c.account_id)


def read_account(connection: Connection, name: str) -> Account:
    """Return the account of this id or, if no account has it, of this name.

    Raises:
        NotFound: There is none; names the remedy.
    """
    _check_storable("account", name)
    query = _ACCOUNTS.where(or_(accounts.c.id == name, accounts.c.name == name))
    found = [to_account(row) for row in connection.execute(query.order_by(accounts.c.id != name).limit(1))]
    if not found:
        raise NotFound(
            f"no account {name}; `vl2v-vendor accounts list` shows those there are, "
            f"`vl2v-vendor accounts create {name} --budget UNITS` makes it"
        )
    return found[0]


def read_accounts(connection: Connection) -> list[Account]:
    """Return all accounts by name."""
    return [to_account(row) for row in connection.execute(_ACCOUNTS.order_by(accounts.c.name))]


def read_keys(connection: Connection, account_id: str | None) -> list[ApiKey]:
    """Return the account's API keys, or everybody's, oldest first."""
    query = _KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
    if account_id is not None:
        query = query.where(api_keys.c.account_id == account_id)
    return [to_key(row) for row in connection.execute(query)]


def read_key_budgets(connection: Connection, account_id: str | None) -> dict[str, Budget]:
    """Return the keys' own budgets by key id."""
    query = select(budgets.c.api_key_id, budgets.c.limit_units, budgets.c.used_units).where(
        budgets.c.api_key_id.is_not(None)
    )
    if account_id is not None:
        query = query.where(budgets.c.account_id == account_id)
    return {key_id: Budget(limit_units, used_units) for key_id, limit_units, used_units in connection.execute(query)}


def read_key(connection: Connection, name: str) -> ApiKey:
    """Return the key of this id, prefix or whole secret.

    Raises:
        NotFound: There is none.
        InvalidRequest: A prefix fits several.
    """
    _check_storable("API key", name)
    named = or_(api_keys.c.id == name, api_keys.c.prefix == name, api_keys.c.secret_sha256 == secret_sha256(name))
    found = [to_key(row) for row in connection.execute(_KEYS.where(named))]
    shown = secret_prefix(name)
    if not found:
        raise NotFound(f"no API key {shown}; `vl2v-vendor keys list` shows those there are")
    if len(found) > 1:
        raise InvalidRequest(f"{shown} fits {len(found)} keys; name one by its id, see `vl2v-vendor keys list`")
    return found[0]


def _check_storable(what: str, name: str) -> None:
    """PostgreSQL would fail to even look for a NUL, as if it were out of order."""
    if not name.isprintable():
        raise NotFound(f"no {what} has a name with characters that do not print")


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
