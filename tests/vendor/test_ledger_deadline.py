"""Whoever was refused at the deadline is not charged afterwards, whatever the database does in the meantime."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import event

from support.ledger.ledger_shop import Shop, item_key, problems_of
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.ledger_sql import group_writer as writer_module
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import is_postgresql
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

pytestmark = pytest.mark.anyio


class SlowCharge(ChargeTransaction):
    """A charge that waits inside its transaction once it has charged, until the test lets it go on."""

    charged = threading.Semaphore(0)
    released = threading.Semaphore(0)

    def charge(self, orders):  # type: ignore[no-untyped-def]
        outcomes = super().charge(orders)
        self.charged.release()
        assert self.released.acquire(timeout=5)
        return outcomes


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowCharge]]:
    monkeypatch.setattr(SlowCharge, "charged", threading.Semaphore(0))
    monkeypatch.setattr(SlowCharge, "released", threading.Semaphore(0))
    monkeypatch.setattr("vl2v_vendor.ledger_sql.sql_ledger.ChargeTransaction", SlowCharge)
    monkeypatch.setattr(writer_module, "COMMIT_SECONDS", 3.0, raising=False)
    yield SlowCharge
    SlowCharge.released.release(9)


async def charged(slow: type[SlowCharge]) -> None:
    assert await asyncio.to_thread(slow.charged.acquire, timeout=5)


async def found(shop: Shop, ledger: SqlLedger, *names: str) -> set[str]:
    """Those of the names that were paid for."""
    paid = (await shop.offer(ledger, *names)).paid
    return {name for name in names if item_key(name) in paid}


async def test_an_order_that_was_charged_but_not_committed_at_the_deadline_is_rolled_back(
    shop: Shop, slow: type[SlowCharge], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop.open_ledger() as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "DEADLINE_SECONDS", 0.5)
            with pytest.raises(LedgerUnavailable) as refusal:
                await ledger.charge(shop.order("late"))
        await charged(slow)
        slow.released.release(9)
        await ledger.charge(shop.order("next"))
        assert await found(shop, ledger, "late", "next") == {"next"}
        assert "nothing was billed" in str(refusal.value)
    assert shop.used_units() == 1


async def test_the_neighbours_of_an_order_that_was_given_up_are_charged(
    shop: Shop, slow: type[SlowCharge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that would not have fitted beside it."""

    async with shop.open_ledger() as ledger:
        first = asyncio.create_task(ledger.charge(shop.order("first")))
        await charged(slow)
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "DEADLINE_SECONDS", 0.7)
            late = asyncio.create_task(ledger.charge(shop.order(*(f"late {number}" for number in range(5)))))
            await asyncio.sleep(0)
        young = [asyncio.create_task(ledger.charge(shop.order(*names))) for names in (["a"], list("bcdefgh"))]
        await asyncio.sleep(0)
        slow.released.release()
        await first
        await charged(slow)
        with pytest.raises(LedgerUnavailable):
            await late
        slow.released.release(9)
        await asyncio.gather(*young)
        assert await found(shop, ledger, "first", "late 0", "a", "h") == {"first", "a", "h"}
    assert shop.used_units() == 9
    assert problems_of(shop.engine) == []


async def test_an_order_whose_commit_is_under_way_at_the_deadline_is_answered_with_what_becomes_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(writer_module, "COMMIT_SECONDS", 5.0, raising=False)

    async with shop.open_ledger() as ledger:
        event.listen(shop.engine, "commit", lambda _connection: time.sleep(1.5))
        assert (await ledger.charge(shop.order("cat"))).posted is not None
    assert shop.used_units() == 1


async def test_a_commit_that_arrives_too_late_is_not_done(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As through a network that stood still: the order was refused, and must not be charged when that goes on."""
    if not is_postgresql(shop.engine):
        pytest.skip("nothing can hold a COMMIT up on its way to SQLite")
    monkeypatch.setattr(writer_module, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(writer_module, "COMMIT_SECONDS", 0.3, raising=False)
    stopped = threading.Event()

    def hold_up(_connection: object) -> None:
        stopped.wait(1.5)

    async with shop.open_ledger() as ledger:
        event.listen(shop.engine, "commit", hold_up)
        with pytest.raises(LedgerUnavailable):
            await ledger.charge(shop.order("late"))
        assert await found(shop, ledger, "late") == set()
        await asyncio.sleep(1.5)
        event.remove(shop.engine, "commit", hold_up)
        monkeypatch.setattr(writer_module, "DEADLINE_SECONDS", 5.0)
        await ledger.charge(shop.order("next"))
        assert await found(shop, ledger, "late", "next") == {"next"}
    assert shop.used_units() == 1
