"""What an account is to be invoiced for a month, summed by the database from the ledger's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, and_, case, func, select

from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.ledger_sql.reading import read_ledger_id, snapshot
from vl2v_vendor.ledger_sql.tables import accounts, ledger


@dataclass(frozen=True, slots=True)
class Month:
    """A month in UTC: its name such as `2026-11`, and its bounds in microseconds, the end not included."""

    name: str
    start: int
    end: int

    @classmethod
    def parse(cls, name: str) -> Month:
        """Parse a month's name.

        Raises:
            InvalidRequest: It is none.
        """
        if re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", name) is None or name[:4] in ("0000", "9999"):
            raise InvalidRequest(f"{name} is no month; write it like 2026-11")
        year, month = int(name[:4]), int(name[5:])
        return cls(name, _start_of(year, month), _start_of(year + month // 12, month % 12 + 1))


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


class MonthScan:
    """The month's invoices on the connection of one snapshot."""

    def __init__(self, connection: Connection, month: Month) -> None:
        self._connection = connection
        self._month = month

    def ledger_id(self) -> str:
        """Return the vendor's name for ever."""
        return read_ledger_id(self._connection)

    def invoices(self, account_id: str | None = None) -> Iterator[AccountInvoice]:
        """Yield the invoice of one account, or of all by name; an account without an entry in the month has none."""
        query = select(accounts.c.id, accounts.c.name).order_by(accounts.c.name)
        if account_id is not None:
            query = query.where(accounts.c.id == account_id)
        for found_id, name in self._connection.execute(query).all():
            entries = self._entry_range(found_id)
            if entries is not None:
                yield AccountInvoice(found_id, name, self._lines(found_id), entries)

    def _entry_range(self, account_id: str) -> EntryRange | None:
        bounds = select(func.min(ledger.c.seq), func.max(ledger.c.seq)).where(self._of_month(account_id))
        first_seq, last_seq = self._connection.execute(bounds).one()
        if first_seq is None:
            return None
        head = select(ledger.c.entry_hash).where(ledger.c.account_id == account_id, ledger.c.seq == last_seq)
        return EntryRange(first_seq, last_seq, self._connection.execute(head).scalar_one())

    def _lines(self, account_id: str) -> tuple[InvoiceLine, ...]:
        sign = case((ledger.c.kind == "refund", -1), else_=1)
        product = (
            ledger.c.kind,
            ledger.c.model_id,
            ledger.c.modality,
            ledger.c.unit_price_micro,
            ledger.c.currency,
        )
        query = (
            select(*product, func.sum(sign * ledger.c.units), func.sum(sign * ledger.c.amount_micro))
            .where(self._of_month(account_id), ledger.c.kind.in_(("charge", "refund")))
            .group_by(*product)
            .order_by(*product)
        )
        return tuple(InvoiceLine(*row[:5], int(row[5]), int(row[6])) for row in self._connection.execute(query))

    def _of_month(self, account_id: str) -> ColumnElement[bool]:
        return and_(
            ledger.c.account_id == account_id,
            ledger.c.created_at >= self._month.start,
            ledger.c.created_at < self._month.end,
        )


@contextmanager
def open_month(engine: Engine, month: Month) -> Iterator[MonthScan]:
    """Open a month's invoices of one state of the ledger, beside a running server.

    Raises:
        LedgerUnavailable: The database cannot be read, also midway.
    """
    with snapshot(engine) as connection:
        yield MonthScan(connection, month)


def _start_of(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000_000
