"""The gauge that is always 0, until somebody changes a sum by hand."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text

from support.ledger.ledger_shop import Shop
from support.vendor.serving_shop import images, png, running_vendor
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

pytestmark = pytest.mark.anyio

Clock = list[float]


async def drift(ledger: SqlLedger) -> int:
    return await ledger.drift_units()


async def scraped(client: httpx.AsyncClient) -> str:
    """The gauge's value as the text format has it."""
    body = (await client.get("/metrics")).text
    [value] = [line.split()[1] for line in body.splitlines() if line.startswith("ledger_drift_units ")]
    return value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The process's clock; its one number is the time in seconds."""
    time = [1000.0]
    monkeypatch.setattr("vl2v_vendor.observe.telemetry.monotonic", lambda: time[0])
    return time


def test_honest_books_have_no_drift_and_changed_ones_show_the_difference(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(key_units=5)
    assert shop.run(drift) == 0
    shop.charge(shop.order("a", "b", "c"))
    shop.accounts.refund(shop.account, 2, 1, "blurred")
    shop.accounts.create_account("other", budget_units=5)
    assert shop.run(drift) == 0
    with writing(shop.engine).begin() as connection:
        connection.execute(
            text("UPDATE budgets SET used_units = used_units + 4 WHERE api_key_id IS NULL AND used_units = 2")
        )
    assert shop.run(drift) == 4


async def test_the_gauge_is_refreshed_at_most_every_15_seconds(clock: Clock) -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        await client.post("/v1/embeddings/images", json=images(png("red"), png("blue"), keys=["a" * 64, "b" * 64]))
        assert await scraped(client) == "0.0"
        vendor.ledger.used_units += 3
        clock[0] += 14.9
        assert await scraped(client) == "0.0"
        clock[0] += 0.2
        assert await scraped(client) == "3.0"


async def test_a_slow_ledger_is_asked_less_often(clock: Clock) -> None:
    async with running_vendor() as vendor:
        asked: list[float] = []

        async def slowly() -> int:
            asked.append(clock[0])
            clock[0] += 2.0
            return 0

        vendor.ledger.drift_units = slowly  # type: ignore[method-assign]
        async with vendor.client() as client:
            for _ in range(12):
                await scraped(client)
                clock[0] += 10.0
        assert asked == [1000.0, 1102.0]  # 100 s of rest after 2 s of work


async def test_an_unreadable_ledger_is_no_number_and_no_error() -> None:
    async with running_vendor() as vendor:

        async def refuse() -> int:
            raise LedgerUnavailable("injected")

        vendor.ledger.drift_units = refuse  # type: ignore[method-assign]
        async with vendor.client() as client:
            assert await scraped(client) == "NaN"
