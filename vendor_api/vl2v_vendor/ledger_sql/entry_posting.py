"""Entries that the staff make, each at the end of the account's chain.

Top-ups raise the limit, refunds give units back, and a `restored` entry says what a restored backup has lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, insert, select, update

from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import RESTORE_MARGIN, EntryKind, LedgerEntry
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ports import Signer
from vl2v_vendor.ledger_sql.publication import ensure_published, read_ledger_id
from vl2v_vendor.ledger_sql.rows import ENTRY_COLUMNS, entry_row, to_entry
from vl2v_vendor.ledger_sql.statements import listed, lock_budgets, take_turn
from vl2v_vendor.ledger_sql.tables import IS_REFUND, budgets, ledger


@dataclass(frozen=True, slots=True)
class Posting:
    """Who posts, when, and under which request id."""

    signer: Signer
    account_id: str
    request_id: str
    now: int


def post_top_up(connection: Connection, posting: Posting, units: int, note: str | None) -> LedgerEntry:
    """Raise the account's limit by `units`.

    Raises:
        InvalidRequest: not a positive number of units, or the limit would leave 53 bits.
    """
    account = _lock(connection, posting.account_id, None)
    if units <= 0 or account.limit_units + units > MAX_INTEGER:
        raise InvalidRequest(
            f"a top-up of {units} units is out of range; give a positive number, with a new limit below 2**53"
        )
    entry = _bare_entry(
        connection,
        posting,
        account,
        kind="topup",
        seq=account.last_seq + 1,
        units=units,
        limit_units=account.limit_units + units,
        note=note,
    )
    _append(connection, posting.signer, account.budget_id, entry)
    return entry


def post_restored(connection: Connection, posting: Posting, lost_seq: int, note: str) -> LedgerEntry:
    """Say that entries up to `lost_seq` were signed and are lost; the chain goes on beyond every number given out."""
    account = _lock(connection, posting.account_id, None)
    last_given_seq = max(lost_seq, account.last_seq)
    entry = _bare_entry(
        connection,
        posting,
        account,
        kind="restored",
        seq=last_given_seq + 1 + RESTORE_MARGIN,
        limit_units=account.limit_units,
        ref_seq=last_given_seq,
        note=note,
    )
    _append(connection, posting.signer, account.budget_id, entry)
    return entry


def post_refund(connection: Connection, posting: Posting, seq: int, units: int, note: str) -> LedgerEntry:
    """Give `units` of the charge `seq` back, to the account's budget and to the key's if it has one.

    The entry repeats key, endpoint, model and price of the charge, so that totals by each subtract it.

    Raises:
        NotFound: no charge has this seq.
        InvalidRequest: not a positive number of units, or more than the charge has left.
    """
    charge = _read_charge(connection, posting.account_id, seq)
    account = _lock(connection, posting.account_id, charge.api_key_id)
    left_units = charge.units - _refunded_units(connection, posting.account_id, seq)
    if not 0 < units <= left_units:
        raise InvalidRequest(
            f"{units} units cannot be refunded of entry {seq}: {left_units} of its {charge.units} are left"
        )
    entry = replace(
        charge,
        seq=account.last_seq + 1,
        kind="refund",
        request_id=posting.request_id,
        units=units,
        amount_micro=units * charge.unit_price_micro,
        items_hash=None,
        ref_seq=seq,
        note=note,
        used_units=account.used_units - units,
        limit_units=account.limit_units,
        created_at=max(posting.now, account.last_created_at),
        signing_key_id=posting.signer.key_id,
        prev_hash=account.head_hash,
    )
    _append(connection, posting.signer, account.budget_id, entry)
    if account.key_budget_id is not None:
        credited = budgets.c.used_units - units
        connection.execute(update(budgets).where(budgets.c.id == account.key_budget_id).values(used_units=credited))
    return entry


@dataclass(frozen=True, slots=True)
class _LockedAccount:
    budget_id: int
    key_budget_id: int | None
    limit_units: int
    used_units: int
    last_seq: int
    head_hash: str
    last_created_at: int
    currency: str


def _lock(connection: Connection, account_id: str, api_key_id: str | None) -> _LockedAccount:
    backend = connection.dialect.name
    if backend == "postgresql":
        connection.execute(take_turn(), {"account_id": account_id})
    api_key_ids = listed([] if api_key_id is None else [api_key_id], backend)
    rows = connection.execute(lock_budgets(backend), {"account_id": account_id, "api_key_ids": api_key_ids}).all()
    if not rows:
        raise NotFound(f"no account {account_id}")
    account = rows[0]
    return _LockedAccount(account.id, rows[1].id if len(rows) > 1 else None, *account[2:])


def _bare_entry(
    connection: Connection,
    posting: Posting,
    account: _LockedAccount,
    *,
    kind: EntryKind,
    seq: int,
    limit_units: int,
    note: str | None,
    units: int = 0,
    ref_seq: int | None = None,
) -> LedgerEntry:
    """Build an entry of no key, model or price."""
    return LedgerEntry(
        ledger_id=read_ledger_id(connection),
        account_id=posting.account_id,
        seq=seq,
        kind=kind,
        request_id=posting.request_id,
        api_key_id=None,
        endpoint=None,
        modality=None,
        model_id=None,
        weights_sha=None,
        precision=None,
        preprocessing_id=None,
        units=units,
        price_id=None,
        unit_price_micro=0,
        amount_micro=0,
        currency=account.currency,
        items_hash=None,
        ref_seq=ref_seq,
        note=note,
        used_units=account.used_units,
        limit_units=limit_units,
        created_at=max(posting.now, account.last_created_at),
        signing_key_id=posting.signer.key_id,
        prev_hash=account.head_hash,
    )


def _read_charge(connection: Connection, account_id: str, seq: int) -> LedgerEntry:
    query = select(*ENTRY_COLUMNS).where(
        ledger.c.account_id == account_id, ledger.c.seq == seq, ledger.c.kind == "charge"
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"entry {seq} is no charge of this account; see the statement for its charges")
    return to_entry(row)[0]


def _refunded_units(connection: Connection, account_id: str, seq: int) -> int:
    query = select(func.coalesce(func.sum(ledger.c.units), 0)).where(
        ledger.c.account_id == account_id, IS_REFUND, ledger.c.ref_seq == seq
    )
    return int(connection.execute(query).scalar_one())


def _append(connection: Connection, signer: Signer, budget_id: int, entry: LedgerEntry) -> None:
    ensure_published(connection, signer)
    entry_hash = entry.hash()
    connection.execute(
        update(budgets)
        .where(budgets.c.id == budget_id)
        .values(
            limit_units=entry.limit_units,
            used_units=entry.used_units,
            last_seq=entry.seq,
            head_hash=entry_hash,
            last_created_at=entry.created_at,
        )
    )
    connection.execute(insert(ledger).values(entry_row(entry, entry_hash)))
