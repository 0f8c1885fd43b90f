"""A server's clock follows the wall clock, but no step of it by more than a bound ahead."""

from __future__ import annotations

import asyncio
from math import inf
from pathlib import Path

import pytest

from support.ledger.ledger_shop import RETENTION_SECONDS, open_shop
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.host import ClockStepped, GuardedClock
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.settings import Settings

pytestmark = pytest.mark.anyio

SECOND = 1_000_000
YEAR = 366 * 86_400 * SECOND


class Hands:
    """A wall clock, and the time since the machine was started, in nanoseconds."""

    def __init__(self, wall: int) -> None:
        self.wall, self.boot = wall * 1000, 5_000_000_000

    def go_on(self, micro: int, *, step: int = 0) -> None:
        self.wall += (micro + step) * 1000
        self.boot += micro * 1000

    def guarded(self) -> GuardedClock:
        return GuardedClock(60.0, wall=lambda: self.wall, since_boot=lambda: self.boot)


async def test_a_step_ahead_is_held_back_and_seen_and_one_back_is_not() -> None:
    hands = Hands(YEAR)
    clock = hands.guarded()
    hands.go_on(3600 * SECOND)  # as in a suspended machine, too
    assert clock.now() == YEAR + 3600 * SECOND
    hands.go_on(0, step=60 * SECOND)
    assert clock.now() == YEAR + 3660 * SECOND
    await clock.check()
    hands.go_on(SECOND, step=YEAR)
    assert clock.now() == YEAR + 3661 * SECOND
    with pytest.raises(ClockStepped, match=r"366 days.* ahead .*restart the server"):
        await clock.check()
    hands.go_on(SECOND, step=-2 * YEAR)
    assert clock.now() == 3662 * SECOND
    await clock.check()


async def test_without_a_bound_every_step_passes() -> None:
    hands = Hands(YEAR)
    clock = GuardedClock(inf, wall=lambda: hands.wall, since_boot=lambda: hands.boot)
    hands.go_on(SECOND, step=YEAR)
    assert clock.now() == 2 * YEAR + SECOND
    await clock.check()


async def test_an_entry_is_not_made_in_a_year_that_has_not_come(sqlite_url: str) -> None:
    shop = open_shop(open_engine(sqlite_url))  # PostgreSQL has a clock of its own
    hands = Hands(shop.clock.time)
    ledger = SqlLedger(shop.engine, signer=shop.signer, clock=hands.guarded(), retention_seconds=RETENTION_SECONDS)
    await ledger.start()
    await ledger.charge(shop.order("a"))
    hands.go_on(SECOND, step=YEAR)
    await ledger.charge(shop.order("b"))
    entries = [posted.entry for posted in await ledger.entries(shop.account.id, after_seq=1, limit=10)]
    await ledger.close()
    shop.engine.dispose()
    assert [entry.created_at - shop.clock.time for entry in entries] == [0, 61 * SECOND]


def test_the_start_warns_of_a_ledger_that_is_ahead_of_the_machine(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, encoder="hash")
    steps: list[tuple[str, str]] = []

    async def start() -> None:
        async with open_services(settings, lambda label, text: steps.append((label, text))) as services:
            await services.readiness["clock"]()

    asyncio.run(start())
    assert "warning" not in dict(steps)
    engine = open_engine(settings.database)
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO accounts VALUES ('acct_a', 'acme', 'EUR', 1)")
        ahead = "SELECT 1, 'acct_a', NULL, 0, 0, 0, '', (strftime('%s') + 7200) * 1000000"
        connection.exec_driver_sql(f"INSERT INTO budgets {ahead}")
        connection.commit()
    engine.dispose()
    asyncio.run(start())
    assert "1:59:" in dict(steps)["warning"] or "2:00:00" in dict(steps)["warning"]
    assert "ahead of this machine's clock" in dict(steps)["warning"]
