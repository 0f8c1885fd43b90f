"""Writing the entries that the staff make, each at the end of the account's chain; `domain.charging` decides them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from vl2v_contract.chain import ChainEnd, EntryOrigin, LedgerEntry
from vl2v_vendor.domain.charging import decide_refund, decide_top_up
from vl2v_vendor.domain.errors import NotFound
from vl2v_vendor.domain.ports import Signer
from vl2v_vendor.ledger_sql.key_publication import ensure_published
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.rows import ENTRY_COLUMNS, entry_row, to_chain_end, to_entry
from vl2v_vendor.ledger_sql.statements import array_parameter, lock_account, lock_budgets
from vl2v_vendor.ledger_sql.tables import IS_REFUND, budgets, ledger


@dataclass(frozen=True, slots=True)
class PostingContext:
    """Account of an entry, its signer, and the request id and time of the act that makes it."""

    signer: Signer
    account_id: str
    request_id: str
    now: int

    @property
    def origin(self) -> EntryOrigin:
        """What the entry says of where it comes from."""
        return EntryOrigin(self.request_id, self.now, self.signer.key_id)


def post_top_up(connection: Connection, context: PostingContext, units: int, note: str | None) -> LedgerEntry:
    """Raise the account's limit by `units`; raises NotFound, or InvalidRequest as `decide_top_up`."""
    account = _lock(connection, context.account_id)
    entry = decide_top_up(account.end, context.origin, units, note)
    return _append(connection, context.signer, account.budget_id, entry)


def post_restored(connection: Connection, context: PostingContext, lost_seq: int, note: str) -> LedgerEntry:
    """Record that entries up to `lost_seq` were signed and are lost; the chain goes on beyond every number given."""
    account = _lock(connection, context.account_id)
    entry = LedgerEntry.restored(account.end, context.origin, lost_seq, note)
    return _append(connection, context.signer, account.budget_id, entry)


def post_refund(connection: Connection, context: PostingContext, seq: int, units: int, note: str) -> LedgerEntry:
    """Give `units` of the charge `seq` back, to the account's budget and to the key's if it has one.

    Raises NotFound if no charge has this seq, and InvalidRequest as `decide_refund`.
    """
    charge = _read_charge(connection, context.account_id, seq)
    account = _lock(connection, context.account_id, charge.api_key_id)
    refunded_units = _refunded_units(connection, context.account_id, seq)
    entry = decide_refund(account.end, context.origin, charge, refunded_units, units, note)
    _append(connection, context.signer, account.budget_id, entry)
    if account.key_budget_id is not None:
        credited = budgets.c.used_units - units
        connection.execute(update(budgets).where(budgets.c.id == account.key_budget_id).values(used_units=credited))
    return entry


@dataclass(frozen=True, slots=True)
class _LockedRows:
    budget_id: int
    key_budget_id: int | None
    end: ChainEnd


def _lock(connection: Connection, account_id: str, api_key_id: str | None = None) -> _LockedRows:
    backend = connection.dialect.name
    if backend == "postgresql":
        connection.execute(lock_account(), {"account_id": account_id})
    api_key_ids = array_parameter([] if api_key_id is None else [api_key_id], backend)
    rows = connection.execute(lock_budgets(backend), {"account_id": account_id, "api_key_ids": api_key_ids}).all()
    if not rows:
        raise NotFound(f"no account {account_id}")
    end = to_chain_end(read_ledger_id(connection), account_id, rows[0])
    return _LockedRows(rows[0].id, rows[1].id if len(rows) > 1 else None, end)


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


def _append(connection: Connection, signer: Signer, budget_id: int, entry: LedgerEntry) -> LedgerEntry:
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
    return entry
