"""The invariants of the bill that a database can be asked about, each against its rows and nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pytest
from sqlalchemy import Engine, Row, Table, select, text
from sqlalchemy.exc import DBAPIError

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry, follows, items_hash
from vl2v_contract.records import Breakdown
from vl2v_vendor.domain.ports import AccountTotals
from vl2v_vendor.ledger_sql.database import is_postgresql, writing
from vl2v_vendor.ledger_sql.tables import budgets, charge_items, ledger, prices

_MICRO_PER_DAY = 86_400_000_000
_SIGNS = {"charge": 1, "refund": -1}
_FORGERIES = (
    "UPDATE ledger SET units = units + 1",
    "DELETE FROM ledger",
    "UPDATE charge_items SET item_key = 'x'",
    "DELETE FROM charge_items",
    "UPDATE prices SET unit_price_micro = 0",
    "DELETE FROM prices",
)
_SQLITE_FORGERIES = tuple(
    f"REPLACE INTO {table} SELECT * FROM {table}" for table in ("ledger", "charge_items", "prices")
)
_POSTGRES_FORGERIES = tuple(f"TRUNCATE {table} CASCADE" for table in ("ledger", "charge_items", "prices"))


@dataclass(frozen=True)
class Books:
    """All that money hangs on, in one snapshot."""

    budgets: list[Row[Any]]
    entries: list[Row[Any]]
    items: list[Row[Any]]
    prices: list[Row[Any]]

    @classmethod
    def read(cls, engine: Engine) -> Books:
        with engine.connect() as connection:
            if is_postgresql(connection):
                connection.execution_options(isolation_level="REPEATABLE READ")

            def rows(table: Table, *order: str) -> list[Row[Any]]:
                return list(connection.execute(select(table).order_by(*(table.c[name] for name in order))))

            return cls(
                rows(budgets, "id"),
                rows(ledger, "account_id", "seq"),
                rows(charge_items, "account_id", "seq", "idx"),
                rows(prices, "id"),
            )

    @property
    def account_budgets(self) -> list[Row[Any]]:
        return [row for row in self.budgets if row.api_key_id is None]

    def chain(self, account_id: str) -> list[Row[Any]]:
        return [row for row in self.entries if row.account_id == account_id]


def check_i1_budget_within_limit(books: Books) -> None:
    for row in books.budgets:
        assert 0 <= row.used_units <= row.limit_units, row
    for entry in books.entries:
        assert 0 <= entry.used_units <= entry.limit_units, entry


def check_i2_used_is_charged_less_refunded(books: Books) -> None:
    net: Counter[tuple[str, str | None]] = Counter()
    items: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    for entry in books.entries:
        sign = _SIGNS.get(entry.kind, 0)
        net[entry.account_id, None] += sign * entry.units
        net[entry.account_id, entry.api_key_id] += sign * entry.units if entry.api_key_id else 0
        refunded[entry.account_id] += entry.units if entry.kind == "refund" else 0
    for item in books.items:
        assert item.units == 1, item
        items[item.account_id] += 1
    for row in books.budgets:
        assert row.used_units == net[row.account_id, row.api_key_id], row
    for row in books.account_budgets:
        assert row.used_units == items[row.account_id] - refunded[row.account_id], row


def check_i3_amount_is_units_times_price(books: Books) -> None:
    listed = {price.id: price.unit_price_micro for price in books.prices}
    for entry in books.entries:
        numbers = (entry.units, entry.unit_price_micro, entry.amount_micro)
        assert all(type(number) is int for number in numbers), entry
        assert entry.amount_micro == entry.units * entry.unit_price_micro, entry
        assert entry.unit_price_micro == (listed[entry.price_id] if entry.price_id else 0), entry


def check_i4_one_charge_per_key(books: Books, ever_charged: dict[tuple[str, str], int]) -> None:
    """`ever_charged` remembers the entry of each key from step to step, and is brought up to date."""
    charged = {(item.account_id, item.item_key): item.seq for item in books.items}
    assert len(charged) == len(books.items)
    for name, seq in ever_charged.items():
        assert charged.get(name) == seq, name
    ever_charged |= charged


def check_i5_seq_without_gaps(books: Books) -> None:
    for account in books.account_budgets:
        seq = 0
        for row in books.chain(account.account_id):
            assert follows(seq, _entry_of(row)), row
            seq = row.seq
        assert account.last_seq == seq


def check_i6_chain_recomputes(books: Books) -> None:
    items = defaultdict(list)
    for item in books.items:
        items[item.account_id, item.seq].append(ChargedItem(item.item_key, item.result_sha, item.units))
    for account in books.account_budgets:
        head, created_at = GENESIS_HASH, 0
        for row in books.chain(account.account_id):
            assert row.prev_hash == head, row
            assert row.entry_hash == _entry_of(row).hash(), row
            assert row.created_at >= created_at, row
            own = items[row.account_id, row.seq]
            assert row.items_hash == (items_hash(own) if row.kind == "charge" else None), row
            head, created_at = row.entry_hash, row.created_at
        assert account.head_hash == head


def check_i8_charged_is_delivered(books: Books, delivered: Iterable[str]) -> None:
    """Every charged key was answered with its vector, and every delivered one was charged."""
    assert {item.item_key for item in books.items} == set(delivered)


def check_i10_append_only(engine: Engine, books: Books) -> None:
    extra = _POSTGRES_FORGERIES if is_postgresql(engine) else _SQLITE_FORGERIES
    filled = {"ledger": books.entries, "charge_items": books.items, "prices": books.prices}
    for forgery in (*_FORGERIES, *extra):
        if not any(rows for table, rows in filled.items() if table in forgery.split()):
            continue  # SQLite fires its triggers per row
        with writing(engine).connect() as connection, connection.begin() as transaction:
            with pytest.raises(DBAPIError, match="append-only"):
                connection.execute(text(forgery))
            transaction.rollback()


def check_i11_totals_agree(books: Books, totals: Mapping[str, AccountTotals]) -> None:
    for account_id, told in totals.items():
        rows = [row for row in books.chain(account_id) if row.kind in _SIGNS]
        assert told.units == sum(_SIGNS[row.kind] * row.units for row in rows)
        assert told.amount_micro == sum(_SIGNS[row.kind] * row.amount_micro for row in rows)
        assert told.head.used_units == told.units
        for groups, column in (
            (told.by_model, "model_id"), (told.by_endpoint, "endpoint"), (told.by_key, "api_key_id"),
        ):  # fmt: skip
            assert _named(groups) == _grouped(rows, column)
        assert sum(group.units for group in told.by_day) == told.units
        assert len(told.by_day) == len({row.created_at // _MICRO_PER_DAY for row in rows})


def check_rows_add_up(books: Books, ever_charged: dict[tuple[str, str], int]) -> None:
    """I1 to I6."""
    check_i1_budget_within_limit(books)
    check_i2_used_is_charged_less_refunded(books)
    check_i3_amount_is_units_times_price(books)
    check_i4_one_charge_per_key(books, ever_charged)
    check_i5_seq_without_gaps(books)
    check_i6_chain_recomputes(books)


def _entry_of(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(**{field.name: getattr(row, field.name) for field in fields(LedgerEntry)})


def _named(groups: Iterable[Breakdown]) -> dict[str, tuple[int, int]]:
    return {group.name: (group.units, group.amount_micro) for group in groups}


def _grouped(rows: Iterable[Row[Any]], column: str) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        units, amount_micro = sums.get(getattr(row, column), (0, 0))
        sign = _SIGNS[row.kind]
        sums[getattr(row, column)] = units + sign * row.units, amount_micro + sign * row.amount_micro
    return sums
