"""Reading the whole ledger in one snapshot, as a stream, for `service.verification`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, select

from vl2v_contract.chain import ChargedItem, EntryKind, LedgerEntry
from vl2v_contract.records import PublicKey
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.ledger_sql.account_rows import read_key_budgets
from vl2v_vendor.ledger_sql.price_list import list_prices
from vl2v_vendor.ledger_sql.reading import read_head, read_ledger_id, read_published_keys, snapshot
from vl2v_vendor.ledger_sql.rows import ENTRY_COLUMNS, to_entry, unpack_vector
from vl2v_vendor.ledger_sql.tables import (
    IS_REFUND,
    accounts,
    admin_log,
    api_keys,
    charge_items,
    ledger,
    results,
)
from vl2v_vendor.service.ledger_books import AccountBooks, LoggedAct, StoredItem

_ROWS_AT_A_TIME = 1000

_POSTING_ACTS: dict[str, tuple[EntryKind, str | None]] = {
    "create_account": ("topup", "budget_units"),
    "top_up": ("topup", "units"),
    "refund": ("refund", "units"),
    "acknowledge_restore": ("restored", None),
}
"""The acts that make entries: of which kind, and the parameter that says of how many units."""


@contextmanager
def open_scan(engine: Engine) -> Iterator[SqlScan]:
    """Open a scan over one state of the ledger, beside a running server.

    Raises:
        LedgerUnavailable: The database cannot be read, also midway.
    """
    with snapshot(engine) as connection:
        yield SqlScan(connection)


class SqlScan:
    """`service.ledger_books.LedgerScan` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ledger_id(self) -> str:
        """Return the vendor's name for ever."""
        return read_ledger_id(self._connection)

    def published_keys(self) -> list[PublicKey]:
        """Return the signing keys, oldest first."""
        return read_published_keys(self._connection)

    def accounts(self) -> Iterator[AccountBooks]:
        """Return every account with its head, its keys, and the staff's acts."""
        rows = self._connection.execute(select(accounts.c.id, accounts.c.currency).order_by(accounts.c.id)).all()
        for account_id, currency in rows:
            yield AccountBooks(
                account_id,
                currency,
                read_head(self._connection, account_id),
                api_key_ids=self._api_key_ids(account_id),
                key_budgets=read_key_budgets(self._connection, account_id),
                acts=self._acts(account_id),
                refunded_seqs=self._refunded_seqs(account_id),
            )

    def prices(self) -> dict[int, Price]:
        """Return every version of every price, by id."""
        return {price.id: price for price in list_prices(self._connection, None)}

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
        for row in self._stream(query):
            seq, index, item_key, sold_sha, units, vector = tuple(row)
            kept_sha = None if vector is None else result_sha(unpack_vector(vector))
            yield StoredItem(seq, index, ChargedItem(item_key, sold_sha, units), kept_sha)

    def _api_key_ids(self, account_id: str) -> frozenset[str]:
        query = select(api_keys.c.id).where(api_keys.c.account_id == account_id)
        return frozenset(self._connection.execute(query).scalars())

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

    def _refunded_seqs(self, account_id: str) -> frozenset[int]:
        query = select(ledger.c.ref_seq).where(ledger.c.account_id == account_id, IS_REFUND)
        return frozenset(self._connection.execute(query).scalars())

    def _stream(self, query: Select[Any]) -> Iterator[Row[Any]]:
        return iter(self._connection.execute(query.execution_options(yield_per=_ROWS_AT_A_TIME)))
