"""The whole ledger on the connection of one snapshot: verified, or a month of it summed up for invoices."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from vl2v_contract.chain import ChargedItem, EntryKind, LedgerEntry
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ports import LedgerHead
from vl2v_vendor.ledger_sql.account_rows import read_key_budgets
from vl2v_vendor.ledger_sql.orphans import check_orphans
from vl2v_vendor.ledger_sql.reading import IS_SALE, SUMS, read_ledger_id, read_prices, read_published_keys
from vl2v_vendor.ledger_sql.signatures import read_begun, read_signed_acts
from vl2v_vendor.ledger_sql.staff_rows import check_staff_rows
from vl2v_vendor.ledger_sql.statements import ENTRY_COLUMNS, to_entry, unpack_vector
from vl2v_vendor.ledger_sql.tables import (
    IS_REFUND,
    accounts,
    admin_log,
    api_keys,
    budgets,
    charge_items,
    entry_signatures,
    ledger,
    results,
)
from vl2v_vendor.service.signature_checks import EntryCheck, check_acts
from vl2v_vendor.service.verification import (
    AccountBooks,
    AccountCheck,
    LoggedAct,
    StoredItem,
    VerificationReport,
    check_keys,
)

_ROWS_AT_A_TIME = 1000

_POSTING_ACTS: dict[str, tuple[EntryKind, str | None]] = {
    "create_account": ("topup", "budget_units"),
    "top_up": ("topup", "units"),
    "refund": ("refund", "units"),
    "acknowledge_restore": ("restored", None),
}
"""The acts that make entries: of which kind, and the parameter that says of how many units."""


def month_bounds(name: str) -> tuple[int, int]:
    """Return the bounds of a month such as `2026-11`, in microseconds, UTC; the end is not included.

    Raises:
        InvalidRequest: The name is none.
    """
    if re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", name) is None or name[:4] in ("0000", "9999"):
        raise InvalidRequest(f"{name} is no month; write it like 2026-11")
    year, month = int(name[:4]), int(name[5:])
    days = datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    start, end = (int(day.timestamp()) * 1_000_000 for day in days)
    return start, end


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """Units of one product at one price; those of refunds are negative, and so is their amount."""

    kind: str
    model_id: str
    modality: str
    unit_price_micro: int
    currency: str
    units: int
    amount_micro: int


@dataclass(frozen=True, slots=True)
class EntryRange:
    """The account's entries of the month, of every kind: the statement has these numbers and this hash at the end."""

    first_seq: int
    last_seq: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class AccountInvoice:
    """One account's month."""

    account_id: str
    account_name: str
    lines: tuple[InvoiceLine, ...]
    entries: EntryRange


def verify_ledger(connection: Connection) -> VerificationReport:
    """Check every account on the connection of one snapshot; memory does not grow with charges and items."""
    report, keys = VerificationReport(), read_published_keys(connection)
    check_keys(keys, report)
    key_ids, ledger_id = frozenset(key.key_id for key in keys), read_ledger_id(connection)
    check_staff_rows(connection, report)
    public_keys, begun = {key.key_id: key.public_key for key in keys}, read_begun(connection)
    check_acts(read_signed_acts(connection), public_keys, report, is_older=begun is None)
    prices = {price.id: price for price in read_prices(connection)}
    rows = connection.execute(select(accounts.c.id, accounts.c.currency).order_by(accounts.c.id)).all()
    for account_id, currency in rows:
        books, items = _read_books(connection, account_id, currency), _read_items(connection, account_id)
        of_account = None if begun is None else begun.get(account_id, set())
        signatures = EntryCheck(account_id, public_keys, of_account, report)
        entries = _read_entries(connection, account_id, signatures)
        AccountCheck(books, ledger_id, key_ids, prices, report, items).run(entries)
    check_orphans(connection, report)
    return report


def _read_entries(connection: Connection, account_id: str, signatures: EntryCheck) -> Iterator[tuple[LedgerEntry, str]]:
    """Yield the account's entries with their stored hashes, their signatures checked on the way."""
    own = and_(entry_signatures.c.account_id == ledger.c.account_id, entry_signatures.c.seq == ledger.c.seq)
    query = (
        select(*ENTRY_COLUMNS, entry_signatures.c.signature)
        .outerjoin(entry_signatures, own)
        .where(ledger.c.account_id == account_id)
        .order_by(ledger.c.seq)
    )
    for row in _stream(connection, query):
        entry, stored_hash = to_entry(row[:-1])
        signatures.take(entry, stored_hash, row[-1])
        yield entry, stored_hash
    signatures.end()


def read_invoices(
    connection: Connection, month: tuple[int, int], account_id: str | None = None
) -> Iterator[AccountInvoice]:
    """Yield the invoice of one account, or of all by name, within `month_bounds`; without an entry there is none."""
    query = select(accounts.c.id, accounts.c.name).order_by(accounts.c.name)
    if account_id is not None:
        query = query.where(accounts.c.id == account_id)
    for found_id, name in connection.execute(query).all():
        of_account = ledger.c.account_id == found_id
        of_month = and_(of_account, ledger.c.created_at >= month[0], ledger.c.created_at < month[1])
        bounds = select(func.min(ledger.c.seq), func.max(ledger.c.seq)).where(of_month)
        first_seq, last_seq = connection.execute(bounds).one()
        if first_seq is None:
            continue
        head = select(ledger.c.entry_hash).where(of_account, ledger.c.seq == last_seq)
        entries = EntryRange(first_seq, last_seq, connection.execute(head).scalar_one())
        product = [ledger.c[name] for name in ("kind", "model_id", "modality", "unit_price_micro", "currency")]
        sums = select(*product, *SUMS.values()).where(of_month, IS_SALE).group_by(*product).order_by(*product)
        lines = [InvoiceLine(*[*row[:5], *map(int, row[5:])]) for row in connection.execute(sums)]
        yield AccountInvoice(found_id, name, tuple(lines), entries)


def _read_books(connection: Connection, account_id: str, currency: str) -> AccountBooks:
    key_ids = select(api_keys.c.id).where(api_keys.c.account_id == account_id)
    of_head = ("last_seq", "head_hash", "used_units", "limit_units", "last_created_at")
    head = select(*(budgets.c[name] for name in of_head)).where(
        budgets.c.account_id == account_id, budgets.c.api_key_id.is_(None)
    )
    *end, last_created_at = connection.execute(head).first() or (0, "", 0, 0, 0)
    refunded = select(ledger.c.ref_seq).where(ledger.c.account_id == account_id, IS_REFUND)
    return AccountBooks(
        account_id,
        currency,
        LedgerHead(*end),
        last_created_at,
        api_key_ids=frozenset(connection.execute(key_ids).scalars()),
        key_budgets=read_key_budgets(connection, account_id),
        acts=_read_posting_acts(connection, account_id),
        refunded_seqs=frozenset(connection.execute(refunded).scalars()),
    )


def _read_items(connection: Connection, account_id: str) -> Iterator[StoredItem]:
    """Yield the account's items by seq and index, each kept vector hashed again."""
    kept = and_(results.c.account_id == charge_items.c.account_id, results.c.item_key == charge_items.c.item_key)
    columns = [charge_items.c[name] for name in ("seq", "item_key", "result_sha", "units")]
    query = (
        select(*columns, results.c.vector)
        .select_from(charge_items.outerjoin(results, kept))
        .where(charge_items.c.account_id == account_id)
        .order_by(charge_items.c.seq, charge_items.c.idx)
    )
    for seq, item_key, sold_sha, units, vector in map(tuple, _stream(connection, query)):
        kept_sha = None if vector is None else "" if len(vector) % 4 else result_sha(unpack_vector(vector))
        yield StoredItem(seq, ChargedItem(item_key, sold_sha, units), kept_sha)


def _read_posting_acts(connection: Connection, account_id: str) -> dict[str, LoggedAct]:
    query = select(admin_log.c.request_id, admin_log.c.act, admin_log.c.parameters).where(
        admin_log.c.account_id == account_id, admin_log.c.act.in_(_POSTING_ACTS)
    )
    found: dict[str, LoggedAct] = {}
    for request_id, name, parameters in connection.execute(query):
        kind, units_name = _POSTING_ACTS[name]
        try:
            units = int(json.loads(parameters)[units_name]) if units_name is not None else 0
        except (KeyError, TypeError, ValueError):
            units = -1  # of no entry
        if units or kind == "restored":  # an account without a first budget has no first entry
            found[request_id] = LoggedAct(name, kind, units)
    return found


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    return iter(connection.execute(query.execution_options(yield_per=_ROWS_AT_A_TIME)))
