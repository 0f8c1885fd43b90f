"""Accounts, API keys and their budgets as the staff see them, each read on the connection of one transaction."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select

from vl2v_vendor.adapters.sql.rows import ACCOUNT_COLUMNS, KEY_COLUMNS, to_account, to_key
from vl2v_vendor.adapters.sql.tables import accounts, api_keys, budgets
from vl2v_vendor.domain.accounts import Account, ApiKey, Budget, secret_prefix, secret_sha256
from vl2v_vendor.domain.errors import InvalidRequest, NotFound

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
        NotFound: there is none.
        InvalidRequest: a prefix fits several.
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
