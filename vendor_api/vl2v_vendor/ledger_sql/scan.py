"""Reading the whole ledger in one snapshot: its books, for `service.verification`, and a month's invoices."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, func, select

from vl2v_contract.chain import ChargedItem, EntryKind, LedgerEntry
from vl2v_contract.records import PublicKey
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.ledger_sql.account_rows import read_key_budgets
from vl2v_vendor.ledger_sql.reading import (
    IS_SALE,
    SUMS,
    read_head,
    read_ledger_id,
    read_prices,
    read_published_keys,
    snapshot,
)
from vl2v_vendor.ledger_sql.statements import ENTRY_COLUMNS, to_entry, unpack_vector
from vl2v_vendor.ledger_sql.tables import IS_REFUND, accounts, admin_log, api_keys, charge_items, ledger, results
from vl2v_vendor.service.verification import AccountBooks, LoggedAct, StoredItem

_ROWS_AT_A_TIME = 1000

_POSTING_ACTS: dict[str, tuple[EntryKind, str | None]] = {
    "create_account": ("topup", "budget_units"),
    "top_up": ("topup", "units"),
    "refund": ("refund", "units"),
    "acknowledge_restore": ("restored", None),
}
"""The acts that make entries: of which kind, and the parameter that says of how many units."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month in UTC: its name such as `2026-11`, and its bounds in microseconds, the end not included."""

    name: str
    start: int
    end: int

    @classmethod
    def parse(cls, name: str) -> "Month":
        """Parse a month's name.

        Raises:
            InvalidRequest: It is none.
        """
        if re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", name) is None or name[:4] in ("0000", "9999"):
            raise InvalidRequest(f"{name} is no month; write it like 2026-11")
        year, month = int(name[:4]), int(name[5:])
        days = datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        start, end = (int(day.timestamp()) * 1_000_000 for day in days)
        return cls(name, start, end)


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


@contextmanager
def open_scan(engine: Engine) -> "Iterator[SqlScan]":
    """Open a scan over one state of the ledger, beside a running server.

    Raises:
        LedgerUnavailable: The database cannot be read, also midway.
    """
    with snapshot(engine) as connection:
        yield SqlScan(connection)


class SqlScan:
    """`service.verification.LedgerScan` on one connection, and the invoices."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ledger_id(self) -> str:
        """Return the vendor's name for ever."""
        return read_ledger_id(self._connection)

    def published_keys(self) -> list[PublicKey]:
        """Return the signing keys, oldest first."""
        return read_published_keys(self._connection)

    def prices(self) -> dict[int, Price]:
        """Return every version of every price, by id."""
        return {price.id: price for price in read_prices(self._connection)}

    def accounts(self) -> Iterator[AccountBooks]:
        """Return every account with its head, its keys, and the staff's acts."""
        rows = self._connection.execute(select(accounts.c.id, accounts.c.currency).order_by(accounts.c.id)).all()
        for account_id, currency in rows:
            key_ids = select(api_keys.c.id).where(api_keys.c.account_id == account_id)
            refunded = select(ledger.c.ref_seq).where(ledger.c.account_id == account_id, IS_REFUND)
            yield AccountBooks(
                account_id,
                currency,
                read_head(self._connection, account_id),
                api_key_ids=frozenset(self._connection.execute(key_ids).scalars()),
                key_budgets=read_key_budgets(self._connection, account_id),
                acts=self._acts(account_id),
                refunded_seqs=frozenset(self._connection.execute(refunded).scalars()),
            )

    def entries(self, account_id: str) -> Iterator[tuple[LedgerEntry, str]]:
        """Return the account's entries with their stored hashes, by seq."""
        query = select(*ENTRY_COLUMNS).where(ledger.c.account_id == account_id).order_by(ledger.c.seq)
        return map(to_entry, self._stream(query))

    def items(self, account_id: str) -> Iterator[StoredItem]:
        """Return the account's items by seq and index, each kept vector hashed again."""
        kept = and_(results.c.account_id == charge_items.c.account_id, results.c.item_key == charge_items.c.item_key)
        query = (
            select(
                charge_items.c.seq,
                charge_items.c.idx,
                charge_items.c.item_key,
                charge_items.c.result_sha,
                charge_items.c.units,
                results.c.vector,
            )
            .select_from(charge_items.outerjoin(results, kept))
            .where(charge_items.c.account_id == account_id)
            .order_by(charge_items.c.seq, charge_items.c.idx)
        )
        for seq, index, item_key, sold_sha, units, vector in map(tuple, self._stream(query)):
            kept_sha = None if vector is None else result_sha(unpack_vector(vector))
            yield StoredItem(seq, index, ChargedItem(item_key, sold_sha, units), kept_sha)

    def invoices(self, month: Month, account_id: str | None = None) -> Iterator[AccountInvoice]:
        """Yield the invoice of one account, or of all by name; an account without an entry in the month has none."""
        query = select(accounts.c.id, accounts.c.name).order_by(accounts.c.name)
        if account_id is not None:
            query = query.where(accounts.c.id == account_id)
        for found_id, name in self._connection.execute(query).all():
            of_account = ledger.c.account_id == found_id
            of_month = and_(of_account, ledger.c.created_at >= month.start, ledger.c.created_at < month.end)
            bounds = select(func.min(ledger.c.seq), func.max(ledger.c.seq)).where(of_month)
            first_seq, last_seq = self._connection.execute(bounds).one()
            if first_seq is None:
                continue
            head = select(ledger.c.entry_hash).where(of_account, ledger.c.seq == last_seq)
            entries = EntryRange(first_seq, last_seq, self._connection.execute(head).scalar_one())
            product = [ledger.c[name] for name in ("kind", "model_id", "modality", "unit_price_micro", "currency")]
            sums = select(*product, *SUMS.values()).where(of_month, IS_SALE).group_by(*product).order_by(*product)
            lines = [InvoiceLine(*[*row[:5], *map(int, row[5:])]) for row in self._connection.execute(sums)]
            yield AccountInvoice(found_id, name, tuple(lines), entries)

    def _acts(self, account_id: str) -> dict[str, LoggedAct]:
        query = select(admin_log.c.request_id, admin_log.c.act, admin_log.c.parameters).where(
            admin_log.c.account_id == account_id, admin_log.c.act.in_(_POSTING_ACTS)
        )
        found: dict[str, LoggedAct] = {}
        for request_id, name, parameters in self._connection.execute(query):
            kind, units_name = _POSTING_ACTS[name]
            units = int(json.loads(parameters)[units_name]) if units_name is not None else 0
            if units or kind == "restored":  # an account without a first budget has no first entry
                found[request_id] = LoggedAct(name, kind, units)
        return found

    def _stream(self, query: Select[Any]) -> Iterator[Row[Any]]:
        return iter(self._connection.execute(query.execution_options(yield_per=_ROWS_AT_A_TIME)))
