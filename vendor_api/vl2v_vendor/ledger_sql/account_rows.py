"""Rows of accounts, API keys and budgets, and the ledger's entries that the staff make, in one transaction each."""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from vl2v_contract.chain import GENESIS_HASH, ChainEnd, EntryOrigin, LedgerEntry
from vl2v_vendor.domain.accounts import Account, ApiKey, Budget, secret_prefix, secret_sha256
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ledger import decide_refund, decide_top_up
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.admin_acts import ActInProgress
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.signatures import require_own, signature_row
from vl2v_vendor.ledger_sql.statements import (
    ENTRY_COLUMNS,
    KEYS,
    LOCK_ACCOUNT,
    PUBLISHED_KEYS,
    array_parameter,
    entry_row,
    lock_budgets,
    to_chain_end,
    to_entry,
    to_key,
)
from vl2v_vendor.ledger_sql.tables import IS_REFUND, accounts, api_keys, budgets, entry_signatures, ledger

_ACCOUNTS = (
    select(*accounts.c, budgets.c.limit_units, budgets.c.used_units)
    .join(budgets, budgets.c.account_id == accounts.c.id)
    .where(budgets.c.api_key_id.is_(None))
)


def read_account(connection: Connection, name: str) -> Account:
    """Return the account of this id or, if no account has it, of this name.

    Raises:
        NotFound: There is none; names the remedy.
    """
    _check_storable("account", name)
    query = _ACCOUNTS.where(or_(accounts.c.id == name, accounts.c.name == name))
    row = connection.execute(query.order_by(accounts.c.id != name).limit(1)).first()
    if row is None:
        raise NotFound(
            f"no account {name}; `vl2v-vendor accounts list` shows those there are, "
            f"`vl2v-vendor accounts create {name} --budget UNITS` makes it"
        )
    return _to_account(row)


def read_accounts(connection: Connection) -> list[Account]:
    """Return all accounts by name."""
    return [_to_account(row) for row in connection.execute(_ACCOUNTS.order_by(accounts.c.name))]


def read_keys(connection: Connection, account_id: str | None = None) -> list[ApiKey]:
    """Return the account's API keys, or everybody's, oldest first."""
    query = KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
    if account_id is not None:
        query = query.where(api_keys.c.account_id == account_id)
    return [to_key(row) for row in connection.execute(query)]


def read_key_budgets(connection: Connection, account_id: str | None = None) -> dict[str, Budget]:
    """Return the keys' own budgets by key id, of one account or of all; a key without one is not there."""
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
    found = connection.execute(KEYS.where(named)).all()
    shown = secret_prefix(name)
    if not found:
        raise NotFound(f"no API key {shown}; `vl2v-vendor keys list` shows those there are")
    if len(found) > 1:
        raise InvalidRequest(f"{shown} fits {len(found)} keys; name one by its id, see `vl2v-vendor keys list`")
    return to_key(found[0])


def _to_account(row: Sequence[Any]) -> Account:
    *own, limit_units, used_units = row
    return Account(*[*own, Budget(limit_units, used_units)])


def _check_storable(what: str, name: str) -> None:
    """Refuse a name that no row has and that PostgreSQL would fail to even look for, such as one with a NUL."""
    if not name.isprintable():
        raise NotFound(f"no {what} has a name with characters that do not print")


def insert_account(act: ActInProgress, name: str, currency: str) -> str:
    """Insert a new account with an empty budget; returns its id.

    Raises:
        InvalidRequest: The name is taken.
    """
    if act.connection.execute(select(accounts.c.id).where(accounts.c.name == name)).first():
        raise InvalidRequest(f"account {name} exists; raise its budget with `vl2v-vendor accounts topup {name} UNITS`")
    account_id = f"acct_{secrets.token_hex(6)}"
    row = {"id": account_id, "name": name, "currency": currency, "created_at": act.now}
    act.connection.execute(insert(accounts).values(row))
    insert_budget(act, account_id, None, 0)
    return account_id


def insert_budget(act: ActInProgress, account_id: str, api_key_id: str | None, limit_units: int) -> None:
    """Insert the budget of an account, at the start of its chain, or of one of its API keys."""
    row = {
        "account_id": account_id,
        "api_key_id": api_key_id,
        "limit_units": limit_units,
        "used_units": 0,
        "last_seq": 0,
        "head_hash": GENESIS_HASH,
        "last_created_at": act.now,
    }
    act.connection.execute(insert(budgets).values(row))


def post_top_up(act: ActInProgress, signer: SecretSigner, account_id: str, units: int, note: str | None) -> LedgerEntry:
    """Raise the account's limit by `units`; raises NotFound, or InvalidRequest as `decide_top_up`."""
    end, budget_ids = _lock(act.connection, signer, account_id)
    return _append(act.connection, signer, budget_ids[0], decide_top_up(end, _origin(act, signer), units, note))


def post_restored(act: ActInProgress, signer: SecretSigner, account_id: str, lost_seq: int, note: str) -> LedgerEntry:
    """Record that entries up to `lost_seq` were signed and are lost; the chain goes on beyond every number given."""
    end, budget_ids = _lock(act.connection, signer, account_id)
    entry = LedgerEntry.restored(end, _origin(act, signer), lost_seq, note)
    return _append(act.connection, signer, budget_ids[0], entry)


def post_refund(
    act: ActInProgress, signer: SecretSigner, account_id: str, seq: int, units: int, note: str
) -> LedgerEntry:
    """Give `units` of the charge `seq` back, to the account's budget and to the key's if it has one.

    Raises:
        NotFound: No charge has this seq.
        InvalidRequest: As `decide_refund`.
    """
    query = select(*ENTRY_COLUMNS).where(
        ledger.c.account_id == account_id, ledger.c.seq == seq, ledger.c.kind == "charge"
    )
    row = act.connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"entry {seq} is no charge of this account; see the statement for its charges")
    charge, _ = to_entry(row)
    end, budget_ids = _lock(act.connection, signer, account_id, charge.api_key_id)
    refunded_units = _refunded_units(act.connection, account_id, seq)
    entry = decide_refund(end, _origin(act, signer), charge, refunded_units, units, note)
    _append(act.connection, signer, budget_ids[0], entry)
    for key_budget_id in budget_ids[1:]:
        credited = budgets.c.used_units - units
        act.connection.execute(update(budgets).where(budgets.c.id == key_budget_id).values(used_units=credited))
    return entry


def _origin(act: ActInProgress, signer: SecretSigner) -> EntryOrigin:
    return EntryOrigin(act.request_id, act.now, signer.key_id)


def _lock(
    connection: Connection, signer: SecretSigner, account_id: str, api_key_id: str | None = None
) -> tuple[ChainEnd, list[int]]:
    """Lock an account; returns the end of its chain, and the ids of its budget and of the key's, if that has one."""
    backend = connection.dialect.name
    if backend == "postgresql":
        connection.execute(LOCK_ACCOUNT, {"account_id": account_id})
    api_key_ids = array_parameter([] if api_key_id is None else [api_key_id], backend)
    rows = connection.execute(lock_budgets(backend), {"account_id": account_id, "api_key_ids": api_key_ids}).all()
    if not rows:
        raise NotFound(f"no account {account_id}")
    head = (account_id, rows[0].last_seq, rows[0].head_hash, rows[0].head_signature)
    require_own(signer, head, lambda: connection.execute(PUBLISHED_KEYS))
    return to_chain_end(read_ledger_id(connection), account_id, rows[0]), [row.id for row in rows]


def _refunded_units(connection: Connection, account_id: str, seq: int) -> int:
    query = select(func.coalesce(func.sum(ledger.c.units), 0)).where(
        ledger.c.account_id == account_id, IS_REFUND, ledger.c.ref_seq == seq
    )
    return int(connection.execute(query).scalar_one())


def _append(connection: Connection, signer: SecretSigner, budget_id: int, entry: LedgerEntry) -> LedgerEntry:
    entry_hash = entry.hash()
    state = {
        "limit_units": entry.limit_units,
        "used_units": entry.used_units,
        "last_seq": entry.seq,
        "head_hash": entry_hash,
        "last_created_at": entry.created_at,
    }
    connection.execute(update(budgets).where(budgets.c.id == budget_id).values(state))
    connection.execute(insert(ledger).values(entry_row(entry, entry_hash)))
    connection.execute(insert(entry_signatures).values(signature_row(signer, entry, entry_hash)))
    return entry
