"""What is read from the ledger, each on the connection of one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, case, func, select
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.chain import ChargedItem
from vl2v_contract.identity import Modality
from vl2v_contract.records import Breakdown, PublicKey, StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budget, Budgets
from vl2v_vendor.domain.errors import LedgerUnavailable, NotFound, UnknownModel
from vl2v_vendor.domain.ledger import PaidItem, Price
from vl2v_vendor.domain.ports import AccountTotals, LedgerHead
from vl2v_vendor.ledger_sql.database import begin_snapshot
from vl2v_vendor.ledger_sql.rows import ENTRY_COLUMNS, to_entry, to_key, to_paid_item, to_price
from vl2v_vendor.ledger_sql.statements import array_parameter, budgets_of, key_by_secret, paid_items, price_in_force
from vl2v_vendor.ledger_sql.tables import accounts, budgets, charge_items, ledger, signing_keys, vendor

_DAY_MICRO = 86_400_000_000


@contextmanager
def snapshot(engine: Engine, *, doing: str = "read") -> Iterator[Connection]:
    """Open a connection whose statements all see one state of the ledger.

    Args:
        engine: Engine of the database.
        doing: What the error says cannot be done.

    Raises:
        LedgerUnavailable: The database cannot be read, also midway.
    """
    try:
        with engine.connect() as connection:
            begin_snapshot(connection)
            yield connection
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger database cannot be {doing} ({type(error).__name__}); try again") from error


def read_ledger_id(connection: Connection) -> str:
    """Return the vendor's name for ever, made with the database."""
    return str(connection.execute(select(vendor.c.ledger_id)).scalar_one())


def read_key_by_secret(connection: Connection, secret_sha256: str) -> ApiKey | None:
    """Return the API key whose secret has this hash."""
    row = connection.execute(key_by_secret(), {"secret_sha256": secret_sha256}).one_or_none()
    return None if row is None else to_key(row)


def read_paid(connection: Connection, account_id: str, item_keys: Sequence[str], now: int) -> dict[str, PaidItem]:
    """Return those of the keys that the account paid for."""
    backend = connection.dialect.name
    parameters = {"account_id": account_id, "item_keys": array_parameter(item_keys, backend), "now": now}
    rows = connection.execute(paid_items(backend), parameters)
    return {item.item_key: item for item in map(to_paid_item, rows)}


def read_budgets(connection: Connection, account_id: str, api_key_id: str) -> Budgets:
    """Return the account's and the key's budgets.

    Raises:
        NotFound: The account is unknown.
    """
    rows = connection.execute(budgets_of(), {"account_id": account_id, "api_key_id": api_key_id})
    found = {key_id: Budget(limit_units, used_units) for key_id, limit_units, used_units in rows}
    if None not in found:
        raise NotFound(f"no account {account_id}")
    return Budgets(found[None], found.get(api_key_id))


def read_price(connection: Connection, model_id: str, modality: Modality) -> Price:
    """Return the price in force.

    Raises:
        UnknownModel: There is none.
    """
    row = connection.execute(price_in_force(), {"model_id": model_id, "modality": modality}).first()
    if row is None:
        raise UnknownModel(f"{model_id} has no price for {modality}s; set one with `vl2v-vendor prices set`")
    return to_price(row)


def read_head(connection: Connection, account_id: str) -> LedgerHead:
    """Return the end of the account's chain.

    Raises:
        NotFound: The account is unknown.
    """
    query = select(budgets.c.last_seq, budgets.c.head_hash, budgets.c.used_units, budgets.c.limit_units).where(
        budgets.c.account_id == account_id, budgets.c.api_key_id.is_(None)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"no account {account_id}")
    return LedgerHead(*row)


def read_entries(connection: Connection, account_id: str, after_seq: int, limit: int) -> list[StatementEntry]:
    """Return entries after `after_seq` in order, with their items."""
    query = (
        select(*ENTRY_COLUMNS)
        .where(ledger.c.account_id == account_id, ledger.c.seq > after_seq)
        .order_by(ledger.c.seq)
        .limit(limit)
    )
    return _with_items(connection, account_id, connection.execute(query).all())


def read_listed_entries(connection: Connection, account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
    """Return the entries of these numbers in order, with their items."""
    query = (
        select(*ENTRY_COLUMNS).where(ledger.c.account_id == account_id, ledger.c.seq.in_(seqs)).order_by(ledger.c.seq)
    )
    return _with_items(connection, account_id, connection.execute(query).all(), charge_items.c.seq.in_(seqs))


def read_request(connection: Connection, account_id: str, request_id: str) -> StatementEntry | None:
    """Return the entry that a request made."""
    query = select(*ENTRY_COLUMNS).where(ledger.c.account_id == account_id, ledger.c.request_id == request_id)
    posted = _with_items(connection, account_id, connection.execute(query).all())
    return posted[0] if posted else None


def read_totals(connection: Connection, account_id: str) -> AccountTotals:
    """Return totals over the account's charges, refunds taken off, in one pass over its rows."""
    head = read_head(connection, account_id)
    currency = connection.execute(select(accounts.c.currency).where(accounts.c.id == account_id)).scalar_one()
    rows = connection.execute(_totals_query(account_id)).all()
    return AccountTotals(
        head=head,
        currency=currency,
        units=sum(int(row.units) for row in rows),
        amount_micro=sum(int(row.amount_micro) for row in rows),
        by_day=_group(rows, "day"),
        by_model=_group(rows, "model_id"),
        by_endpoint=_group(rows, "endpoint"),
        by_key=_group(rows, "api_key_id"),
    )


def read_published_keys(connection: Connection) -> list[PublicKey]:
    """Return public signing keys, oldest first."""
    query = select(
        signing_keys.c.key_id,
        signing_keys.c.public_key,
        signing_keys.c.created_at,
        signing_keys.c.retired_at,
        signing_keys.c.predecessor_id,
        signing_keys.c.predecessor_signature,
    ).order_by(signing_keys.c.created_at, signing_keys.c.predecessor_id.nulls_first())
    return [PublicKey(*row) for row in connection.execute(query)]


def _with_items(
    connection: Connection, account_id: str, rows: Sequence[Row[Any]], among: ColumnElement[bool] | None = None
) -> list[StatementEntry]:
    """Return entries by seq with their items; `among` selects the items unless the entries are all that lie between."""
    if not rows:
        return []
    entries = [to_entry(row) for row in rows]
    if among is None:
        among = charge_items.c.seq.between(entries[0][0].seq, entries[-1][0].seq)
    query = (
        select(charge_items.c.seq, charge_items.c.item_key, charge_items.c.result_sha, charge_items.c.units)
        .where(charge_items.c.account_id == account_id, among)
        .order_by(charge_items.c.seq, charge_items.c.idx)
    )
    items = {
        seq: tuple(ChargedItem(*row[1:]) for row in group)
        for seq, group in groupby(connection.execute(query), key=itemgetter(0))
    }
    return [StatementEntry(entry, entry_hash, items.get(entry.seq, ())) for entry, entry_hash in entries]


def _totals_query(account_id: str) -> Select[Any]:
    sign = case((ledger.c.kind == "refund", -1), else_=1)
    day = (ledger.c.created_at // _DAY_MICRO).label("day")
    groups = (day, ledger.c.model_id, ledger.c.endpoint, ledger.c.api_key_id)
    return (
        select(
            *groups,
            func.sum(sign * ledger.c.units).label("units"),
            func.sum(sign * ledger.c.amount_micro).label("amount_micro"),
        )
        .where(ledger.c.account_id == account_id, ledger.c.kind.in_(("charge", "refund")))
        .group_by(*groups)
    )


def _group(rows: Sequence[Row[Any]], column: str) -> tuple[Breakdown, ...]:
    sums: dict[Any, tuple[int, int]] = {}
    for row in rows:
        name = getattr(row, column)
        units, amount_micro = sums.get(name, (0, 0))
        sums[name] = units + int(row.units), amount_micro + int(row.amount_micro)
    return tuple(Breakdown(*sums[name], _day_name(name) if column == "day" else name) for name in sorted(sums))


def _day_name(day: int) -> str:
    return datetime.fromtimestamp(int(day) * 86_400, tz=UTC).date().isoformat()


def read_drift_units(connection: Connection) -> int:
    """Units used in the accounts' budgets, less the units of charged items that were not refunded, over all accounts.

    Reads every item, on the connection of one snapshot.
    """
    used = select(func.coalesce(func.sum(budgets.c.used_units), 0)).where(budgets.c.api_key_id.is_(None))
    charged = select(func.coalesce(func.sum(charge_items.c.units), 0))
    refunded = select(func.coalesce(func.sum(ledger.c.units), 0)).where(ledger.c.kind == "refund")
    row = connection.execute(
        select(used.scalar_subquery(), charged.scalar_subquery(), refunded.scalar_subquery())
    ).one()
    used_units, charged_units, refunded_units = map(int, row)
    return used_units - (charged_units - refunded_units)
