"""The group-commit writer: neighbours, cancelled callers, and a database that goes away and comes back."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from time import sleep

import pytest
from sqlalchemy import event, text

from support.ledger.ledger_shop import Shop, item_key, open_shop, problems_of, without
from support.vendor.outages import rows_locked
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.domain.errors import BudgetExhausted, LedgerUnavailable, PriceChanged
from vl2v_vendor.domain.ledger import Charge
from vl2v_vendor.ledger_sql import group_writer as writer_module
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import is_postgresql, open_engine, writing

pytestmark = pytest.mark.anyio


class Gate(ChargeTransaction):
    """A charge that waits at its first step, so that a test can queue others behind it."""

    entered = threading.Event()
    opened = threading.Event()

    def lock_account(self, orders):  # type: ignore[no-untyped-def]
        self.entered.set()
        assert self.opened.wait(5)
        return super().lock_account(orders)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Gate]]:
    Gate.entered.clear()
    Gate.opened.clear()
    monkeypatch.setattr("vl2v_vendor.ledger_sql.sql_ledger.ChargeTransaction", Gate)
    yield Gate
    Gate.opened.set()


async def entered(gate: type[Gate]) -> None:
    await asyncio.to_thread(gate.entered.wait, 5)


async def test_what_waits_is_written_in_one_transaction(shop: Shop, gate: type[Gate]) -> None:
    async with shop.open_ledger() as ledger:
        commits: list[object] = []
        event.listen(shop.engine, "commit", commits.append)
        first = asyncio.create_task(ledger.charge(shop.order("first")))
        await entered(gate)
        rest = [asyncio.create_task(ledger.charge(shop.order(f"image {number}"))) for number in range(5)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)
        assert len(commits) == 2
    assert shop.used_units() == 6


async def test_a_charge_that_waited_for_its_account_is_held_to_the_price_that_came_meanwhile(
    shop: Shop, gate: type[Gate]
) -> None:
    if not is_postgresql(shop.engine):
        pytest.skip("on SQLite no price comes while a charge waits")

    async with shop.open_ledger() as ledger:
        waiting = asyncio.create_task(ledger.charge(shop.order("a")))
        await entered(gate)
        await asyncio.to_thread(shop.set_price, 5)
        gate.opened.set()
        with pytest.raises(PriceChanged):
            await waiting
    assert shop.used_units() == 0


async def test_a_refused_order_leaves_its_neighbours_alone(shop: Shop, gate: type[Gate]) -> None:
    async with shop.open_ledger() as ledger:
        orders = [
            shop.order("a"),
            shop.order(*(f"image {number}" for number in range(20))),
            without(shop.order("b"), price_id=999),
            without(shop.order("c"), request_id=shop.order("d").request_id),
            shop.order("e"),
        ]
        orders.append(without(shop.order("f"), request_id=orders[0].request_id))
        waiting = [asyncio.create_task(ledger.charge(order)) for order in orders]
        await entered(gate)
        gate.opened.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Charge, BudgetExhausted, PriceChanged, Charge, Charge, LedgerUnavailable]
    assert shop.used_units() == 3


async def test_keys_that_take_turns_in_a_group_see_each_other(shop: Shop, gate: type[Gate]) -> None:
    other, _ = shop.accounts.create_key(shop.account, scopes=DEFAULT_SCOPES, limit_units=2)

    async with shop.open_ledger() as ledger:
        keys = [shop.key, other, shop.key, other, other, shop.key]
        orders = [shop.order(f"image {number}", key=key) for number, key in enumerate(keys)]
        waiting = [asyncio.create_task(ledger.charge(order)) for order in orders]
        await entered(gate)
        gate.opened.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        budgets = (await shop.offer(ledger, key=other)).budgets
        assert budgets.key is not None
        assert (budgets.account.used_units, budgets.key.used_units) == (5, 2)
    assert [type(outcome) for outcome in outcomes] == [Charge, Charge, Charge, Charge, BudgetExhausted, Charge]
    assert problems_of(shop.engine) == []


async def test_a_caller_that_leaves_before_its_turn_is_not_billed(shop: Shop, gate: type[Gate]) -> None:
    async with shop.open_ledger() as ledger:
        first = asyncio.create_task(ledger.charge(shop.order("first")))
        await entered(gate)
        queued = asyncio.create_task(ledger.charge(shop.order("second")))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.opened.set()
        await first
        await ledger.ping()
        assert (await shop.offer(ledger, "second")).paid == {}
    assert shop.used_units() == 1


async def test_a_caller_that_leaves_during_its_charge_is_billed_and_breaks_nothing(
    shop: Shop, gate: type[Gate]
) -> None:
    async with shop.open_ledger() as ledger:
        leaving = asyncio.create_task(ledger.charge(shop.order("cat")))
        await entered(gate)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.opened.set()
        await ledger.ping()
        assert item_key("cat") in (await shop.offer(ledger, "cat")).paid
        await ledger.charge(shop.order("dog"))
    assert shop.used_units() == 2


async def test_a_failed_commit_bills_nobody_and_the_next_group_succeeds(shop: Shop) -> None:
    def fail(_connection: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with shop.open_ledger() as ledger:
        event.listen(shop.engine, "commit", fail)
        with pytest.raises(LedgerUnavailable):
            await ledger.charge(shop.order("cat"))
        event.remove(shop.engine, "commit", fail)
        assert (await shop.offer(ledger, "cat")).paid == {}
        await ledger.charge(shop.order("cat"))
    assert shop.used_units() == 1


async def test_a_locked_ledger_refuses_in_time_and_recovers(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that holds the write lock (SQLite), or the account's row (PostgreSQL)."""

    async with shop.open_ledger() as ledger:
        loop = asyncio.get_running_loop()
        with writing(shop.engine).begin() as holder:
            if is_postgresql(holder):
                holder.execute(text("SELECT * FROM budgets FOR UPDATE"))
            began = loop.time()
            refused = await asyncio.gather(
                *(ledger.charge(shop.order(f"image {number}")) for number in range(3)), return_exceptions=True
            )
            assert loop.time() - began < 2.5
        assert [type(outcome) for outcome in refused] == [LedgerUnavailable] * 3
        await ledger.charge(shop.order("cat"))
    assert shop.used_units() == 1


@pytest.mark.postgres
async def test_a_ledger_that_was_locked_many_times_sells_again(postgres_url: str) -> None:
    """Also when the driver was about to prepare the statements that waited for the lock."""
    engine, other = open_engine(postgres_url, lock_wait_seconds=0.1), open_engine(postgres_url)
    shop = open_shop(engine, budget_units=100)

    async with shop.open_ledger() as ledger:
        for turn in range(4):
            with rows_locked(other):
                for number in range(3):
                    with pytest.raises(LedgerUnavailable):
                        await ledger.charge(shop.order(f"refused {turn} {number}"))
            await ledger.charge(shop.order(f"sold {turn}"))
    assert shop.used_units() == 4
    engine.dispose()
    other.dispose()


async def test_the_writer_reconnects_by_itself(shop: Shop) -> None:
    if not is_postgresql(shop.engine):
        pytest.skip("SQLite has no connection to lose")

    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a"))
        with shop.engine.begin() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            )
        await ledger.charge(shop.order("b"))
        assert len((await shop.offer(ledger, "a", "b")).paid) == 2
    assert shop.used_units() == 2


async def test_a_process_that_stood_still_in_a_transaction_charges_all_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL has ended the session meanwhile; nothing was committed in it."""
    pauses = iter([writer_module.COMMIT_SECONDS + 0.2])

    class Paused(ChargeTransaction):
        def lock_account(self, orders):  # type: ignore[no-untyped-def]
            sleep(next(pauses, 0))
            return super().lock_account(orders)

    monkeypatch.setattr("vl2v_vendor.ledger_sql.sql_ledger.ChargeTransaction", Paused)
    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a"))
    assert shop.used_units() == 1
    assert problems_of(shop.engine) == []


@pytest.mark.postgres
async def test_a_session_that_is_lost_twice_refuses_its_group(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(ChargeTransaction):
        def lock_account(self, orders):  # type: ignore[no-untyped-def]
            with killer.begin() as connection:
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                )
            return super().lock_account(orders)

    monkeypatch.setattr("vl2v_vendor.ledger_sql.sql_ledger.ChargeTransaction", Lost)
    engine, killer = open_engine(postgres_url), open_engine(postgres_url)
    shop = open_shop(engine)
    async with shop.open_ledger() as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.charge(shop.order("a"))
    assert shop.used_units() == 0
    engine.dispose()
    killer.dispose()


async def test_a_group_is_bounded(shop: Shop, gate: type[Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_GROUP_ITEMS", 2)

    async with shop.open_ledger() as ledger:
        commits: list[object] = []
        event.listen(shop.engine, "commit", commits.append)
        first = asyncio.create_task(ledger.charge(shop.order("first")))
        await entered(gate)
        rest = [asyncio.create_task(ledger.charge(shop.order(f"image {number}"))) for number in range(4)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)
        assert len(commits) == 3


async def test_close_writes_what_is_queued_and_refuses_the_rest(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        queued = asyncio.create_task(ledger.charge(shop.order("cat")))
        await asyncio.sleep(0)
    assert (await queued).posted is not None
    with pytest.raises(LedgerUnavailable):
        await ledger.charge(shop.order("dog"))
    assert shop.used_units() == 1
