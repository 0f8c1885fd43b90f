"""Reading the whole ledger in one snapshot, as a stream, for `service.verification`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, select
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_contract.vectors import result_sha
from vl2v_vendor.adapters.sql.price_list import list_prices
from vl2v_vendor.adapters.sql.reading import read_head, snapshot
from vl2v_vendor.adapters.sql.rows import ENTRY_COLUMNS, to_entry, unpack_vector
from vl2v_vendor.adapters.sql.tables import accounts, budgets, charge_items, ledger, results
from vl2v_vendor.domain.accounts import Budget
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.service.verification import AccountBooks, StoredItem

_ROWS_AT_A_TIME = 1000


@contextmanager
def open_scan(engine: Engine) -> Iterator[SqlScan]:
    """A scan over one state of the ledger, beside a running server.

    Raises:
        LedgerUnavailable: the database cannot be read, also midway.
    """
    try:
        with snapshot(engine) as connection:
            yield SqlScan(connection)
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger database cannot be read ({type(error).__name__}); try again") from error


class SqlScan:
    """`service.verification.LedgerScan` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def accounts(self) -> list[AccountBooks]:
        """Every account with its head and its keys' budgets."""
        rows = self._connection.execute(select(accounts.c.id, accounts.c.currency).order_by(accounts.c.id)).all()
        return [
            AccountBooks(account_id, currency, read_head(self._connection, account_id), self._key_budgets(account_id))
            for account_id, currency in rows
        ]

    def prices(self) -> dict[int, Price]:
        """Every version of every price, by id."""
        return {price.id: price for price in list_prices(self._connection, None)}

    def entries(self, account_id: str) -> Iterator[tuple[LedgerEntry, str]]:
        """The account's entries with their stored hashes, by seq."""
        query = select(*ENTRY_COLUMNS).where(ledger.c.account_id == account_id).order_by(ledger.c.seq)
        return map(to_entry, self._stream(query))

    def items(self, account_id: str) -> Iterator[StoredItem]:
        """The account's items by seq and index, each kept vector hashed again."""
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
        for row in self._stream(query):
            seq, index, item_key, sold_sha, units, vector = tuple(row)
            kept_sha = None if vector is None else result_sha(unpack_vector(vector))
            yield StoredItem(seq, index, ChargedItem(item_key, sold_sha, units), kept_sha)

    def _key_budgets(self, account_id: str) -> dict[str, Budget]:
        query = select(budgets.c.api_key_id, budgets.c.limit_units, budgets.c.used_units).where(
            budgets.c.account_id == account_id, budgets.c.api_key_id.is_not(None)
        )
        return {
            key_id: Budget(limit_units, used_units)
            for key_id, limit_units, used_units in self._connection.execute(query)
        }

    def _stream(self, query: Select[Any]) -> Iterator[Row[Any]]:
        return iter(self._connection.execute(query.execution_options(yield_per=_ROWS_AT_A_TIME)))
