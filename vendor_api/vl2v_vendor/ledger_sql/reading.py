"""What is read from the ledger, each on the connection of one snapshot."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, bindparam, case, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_contract.identity import Modality
from vl2v_contract.records import Breakdown, PublicKey, StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budget, Budgets
from vl2v_vendor.domain.errors import LedgerUnavailable, NotFound, UnknownModel
from vl2v_vendor.domain.ledger import PaidItem, Price
from vl2v_vendor.domain.ports import AccountTotals, Clock, LedgerHead
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.database import begin_snapshot, database_now
from vl2v_vendor.ledger_sql.signatures import require_signed
from vl2v_vendor.ledger_sql.statements import (
    ENTRY_COLUMNS,
    KEY_BY_SECRET,
    PRICE_IN_FORCE,
    PUBLISHED_KEYS,
    array_parameter,
    paid_items,
    to_entry,
    to_key,
    to_paid_item,
)
from vl2v_vendor.ledger_sql.tables import accounts, budgets, charge_items, ledger, prices, vendor

_DAY_MICRO = 86_400_000_000

_BUDGETS = select(budgets.c.api_key_id, budgets.c.limit_units, budgets.c.used_units).where(
    budgets.c.account_id == bindparam("account_id"),
    or_(budgets.c.api_key_id.is_(None), budgets.c.api_key_id == bindparam("api_key_id")),
)
"""The budgets of an account: its own, which has no API key, and that of the key, if it has one."""

_SIGN = case((ledger.c.kind == "refund", -1), else_=1)
SUMS = {"units": func.sum(_SIGN * ledger.c.units), "amount_micro": func.sum(_SIGN * ledger.c.amount_micro)}
"""Units and money of the rows of `IS_SALE`, refunds taken off."""

IS_SALE = ledger.c.kind.in_(("charge", "refund"))


@contextmanager
def unavailable(doing: str) -> Iterator[None]:
    """Raise LedgerUnavailable where the database fails.

    Raises:
        LedgerUnavailable: The database cannot be read, or written.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger database cannot be {doing} ({type(error).__name__}); try again") from error


@contextmanager
def snapshot(engine: Engine, *, doing: str = "read") -> Iterator[Connection]:
    """Open a connection whose statements all see one state of the ledger; raises as `unavailable`, also midway."""
    with unavailable(doing), engine.connect() as connection:
        begin_snapshot(connection)
        yield connection


def read_ledger_id(connection: Connection) -> str:
    """Return the vendor's name for ever, made with the database."""
    return str(connection.execute(select(vendor.c.ledger_id)).scalar_one())


def read_published_keys(connection: Connection) -> list[PublicKey]:
    """Return public signing keys, oldest first."""
    return [PublicKey(*row) for row in connection.execute(PUBLISHED_KEYS)]


def read_key_by_secret(connection: Connection, secret_sha256: str) -> ApiKey | None:
    """Return the API key whose secret has this SHA-256 (hex), revoked or expired ones too."""
    row = connection.execute(KEY_BY_SECRET, {"secret_sha256": secret_sha256}).one_or_none()
    return None if row is None else to_key(row)


def read_paid(connection: Connection, account_id: str, item_keys: Sequence[str], clock: Clock) -> dict[str, PaidItem]:
    """Return those of the keys that the account paid for, by key."""
    now, backend = database_now(connection, clock), connection.dialect.name
    parameters = {"account_id": account_id, "item_keys": array_parameter(item_keys, backend), "now": now}
    return {item.item_key: item for item in map(to_paid_item, connection.execute(paid_items(backend), parameters))}


def read_budgets(connection: Connection, account_id: str, api_key_id: str) -> Budgets:
    """Return the account's and the key's budgets.

    Raises:
        NotFound: The account is unknown.
    """
    rows = connection.execute(_BUDGETS, {"account_id": account_id, "api_key_id": api_key_id})
    found = {key_id: Budget(limit_units, used_units) for key_id, limit_units, used_units in rows}
    if None not in found:
        raise NotFound(f"no account {account_id}")
    return Budgets(found[None], found.get(api_key_id))


def find_price(connection: Connection, model_id: str, modality: Modality) -> Price | None:
    """Return the price in force, if there is one."""
    row = connection.execute(PRICE_IN_FORCE, {"model_id": model_id, "modality": modality}).first()
    return None if row is None else Price(*row)


def read_price(connection: Connection, model_id: str, modality: Modality) -> Price:
    """Return the price in force.

    Raises:
        UnknownModel: There is none.
    """
    price = find_price(connection, model_id, modality)
    if price is None:
        raise UnknownModel(f"{model_id} has no price for {modality}s; set one with `vl2v-vendor prices set`")
    return price


def read_prices(connection: Connection, model_id: str | None = None) -> list[Price]:
    """Return all versions of the prices of one model, or of all, oldest first."""
    query = select(*prices.c).order_by(prices.c.id)
    if model_id is not None:
        query = query.where(prices.c.model_id == model_id)
    return [Price(*row) for row in connection.execute(query)]


def read_newest_time(connection: Connection) -> int:
    """Return the time of the newest entry of any account, or 0, in microseconds."""
    return connection.execute(select(func.max(budgets.c.last_created_at))).scalar_one() or 0


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
    """Return entries `after_seq + 1 ...` in order, at most `limit`, with their items."""
    query = _entries(account_id).where(ledger.c.seq > after_seq).order_by(ledger.c.seq).limit(limit)
    return _with_items(connection, account_id, query)


def read_listed_entries(
    connection: Connection, signer: SecretSigner, account_id: str, seqs: Sequence[int]
) -> list[StatementEntry]:
    """Return the entries of these numbers in order, with their items; raises as `require_signed`."""
    query = _entries(account_id).where(ledger.c.seq.in_(seqs)).order_by(ledger.c.seq)
    found = _with_items(connection, account_id, query, charge_items.c.seq.in_(seqs))
    require_signed(connection, signer, account_id, found[-1].entry.seq if found else 0)
    return found


def read_request(
    connection: Connection, signer: SecretSigner, account_id: str, request_id: str
) -> StatementEntry | None:
    """Return the entry that a request made; raises as `require_signed`."""
    posted = _with_items(connection, account_id, _entries(account_id).where(ledger.c.request_id == request_id))
    require_signed(connection, signer, account_id, posted[0].entry.seq if posted else 0)
    return posted[0] if posted else None


def read_listing(
    connection: Connection,
    account_id: str,
    *,
    limit: int,
    before_seq: int | None = None,
    after_seq: int | None = None,
) -> list[LedgerEntry]:
    """Return entries without their items, the newest first: those before or those after a number, or the newest."""
    query = _entries(account_id).limit(limit)
    if after_seq is not None:
        rows = connection.execute(query.where(ledger.c.seq > after_seq).order_by(ledger.c.seq)).all()[::-1]
    else:
        newest = query if before_seq is None else query.where(ledger.c.seq < before_seq)
        rows = connection.execute(newest.order_by(ledger.c.seq.desc())).all()
    return [to_entry(row)[0] for row in rows]


def read_item_seq(connection: Connection, account_id: str, item_key: str) -> int | None:
    """Return the number of the entry that charged an item."""
    query = select(charge_items.c.seq).where(
        charge_items.c.account_id == account_id, charge_items.c.item_key == item_key
    )
    return connection.execute(query).scalar_one_or_none()


def read_seq_at(connection: Connection, account_id: str, moment: int) -> int:
    """Return the number of the last entry made at `moment` (microseconds) or before; 0 if there is none.

    An account's times never decrease, so a bisection over its numbers finds it, a few tens of rows read.
    """
    low, high = 0, read_head(connection, account_id).seq
    entry = select(ledger.c.seq, ledger.c.created_at).where(ledger.c.account_id == account_id)
    while low < high:
        middle = (low + high + 1) // 2
        # Behind a restored ledger's gap it is one with a higher number.
        seq, created_at = connection.execute(entry.where(ledger.c.seq >= middle).order_by(ledger.c.seq).limit(1)).one()
        low, high = (seq, high) if created_at <= moment else (low, middle - 1)
    return low


def _entries(account_id: str) -> Select[Any]:
    return select(*ENTRY_COLUMNS).where(ledger.c.account_id == account_id)


def _with_items(
    connection: Connection, account_id: str, query: Select[Any], among: ColumnElement[bool] | None = None
) -> list[StatementEntry]:
    """Return entries by seq with their items; `among` selects the items unless the entries are all that lie between."""
    entries = [to_entry(row) for row in connection.execute(query)]
    if not entries:
        return []
    if among is None:
        among = charge_items.c.seq.between(entries[0][0].seq, entries[-1][0].seq)
    found = connection.execute(
        select(charge_items.c.seq, charge_items.c.item_key, charge_items.c.result_sha, charge_items.c.units)
        .where(charge_items.c.account_id == account_id, among)
        .order_by(charge_items.c.seq, charge_items.c.idx)
    )
    items = {seq: tuple(ChargedItem(*row[1:]) for row in group) for seq, group in groupby(found, key=itemgetter(0))}
    return [StatementEntry(entry, entry_hash, items.get(entry.seq, ())) for entry, entry_hash in entries]


def read_totals(connection: Connection, account_id: str, *, since: int = 0) -> AccountTotals:
    """Return totals over the account's charges, refunds taken off, in one pass over its rows from `since` on."""
    head = read_head(connection, account_id)
    after_seq = read_seq_at(connection, account_id, since - 1) if since else 0
    currency = connection.execute(select(accounts.c.currency).where(accounts.c.id == account_id)).scalar_one()
    day = (ledger.c.created_at // _DAY_MICRO).label("day")
    groups = (day, ledger.c.model_id, ledger.c.endpoint, ledger.c.api_key_id)
    rows = connection.execute(
        select(*groups, *(total.label(name) for name, total in SUMS.items()))
        .where(ledger.c.account_id == account_id, ledger.c.seq > after_seq, IS_SALE)
        .group_by(*groups)
    ).all()
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


def _group(rows: Sequence[Row[Any]], column: str) -> tuple[Breakdown, ...]:
    sums: dict[Any, tuple[int, int]] = {}
    for row in rows:
        name = getattr(row, column)
        if name is None:
            raise LedgerUnavailable(f"a charge or refund has no {column}; run `vl2v-vendor ledger verify`")
        units, amount_micro = sums.get(name, (0, 0))
        sums[name] = units + int(row.units), amount_micro + int(row.amount_micro)
    if column == "day":
        sums = {f"{datetime.fromtimestamp(int(day) * 86_400, tz=UTC):%Y-%m-%d}": total for day, total in sums.items()}
    return tuple(Breakdown(*sums[name], name) for name in sorted(sums))


def read_drift_units(connection: Connection) -> int:
    """Return the units used in the accounts' budgets, less those of charged items that were not refunded.

    Reads every item, over all accounts, on the connection of one snapshot.
    """
    used = select(func.coalesce(func.sum(budgets.c.used_units), 0)).where(budgets.c.api_key_id.is_(None))
    charged = select(func.coalesce(func.sum(charge_items.c.units), 0))
    refunded = select(func.coalesce(func.sum(ledger.c.units), 0)).where(ledger.c.kind == "refund")
    row = connection.execute(select(*(query.scalar_subquery() for query in (used, charged, refunded)))).one()
    used_units, charged_units, refunded_units = map(int, row)
    return used_units - (charged_units - refunded_units)
