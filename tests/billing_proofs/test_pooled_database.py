"""PostgreSQL behind a connection pooler: what was refused while its rows were locked is never charged afterwards."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from support.ledger.ledger_shop import problems_of
from support.vendor.http_customers import Answer, Customer, new_key, open_accounts
from support.vendor.live_parties import Vendor, free_port
from support.vendor.outages import rows_locked
from support.vendor.poolers import dropping_options, pgbouncer
from vl2v_vendor.domain.accounts import Account
from vl2v_vendor.ledger_sql.database import open_engine

pytestmark = pytest.mark.postgres


@dataclass
class Lane:
    """A replica, its one customer, and what became of the orders."""

    vendor: Vendor
    engine: Engine
    account: Account
    customer: Customer
    refused: list[Answer] = field(default_factory=list)
    sold_units: int = 0

    def count_used(self) -> int:
        with self.engine.connect() as connection:
            query = text("SELECT used_units FROM budgets WHERE account_id = :id AND api_key_id IS NULL")
            return int(connection.execute(query, {"id": self.account.id}).scalar_one())

    async def order_while_locked(self, number: int, seconds: float) -> None:
        """Order with and without item keys while the account's rows are locked, and once more after it."""
        with rows_locked(self.engine, self.account.id):
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            orders = self.customer.order([f"named {number}"]), self.customer.order_unnamed([f"unnamed {number}"])
            self.refused += await asyncio.gather(*orders)
            self.refused.append(await self.customer.order_unnamed([f"unnamed, too {number}"]))
            await asyncio.sleep(max(0.0, end - loop.time()))
        # The one writer comes to it after all that was still under way.
        while (await self.customer.order([f"sold {number}"])).status != 200:
            await asyncio.sleep(0.05)
        self.sold_units += 1


@pytest.fixture(name="lanes", params=["a proxy that drops options", "PgBouncer in transaction mode"])
def open_lanes(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path, scale: Callable[[int, int], int]
) -> Iterator[list[Lane]]:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        is_proxy = request.param.startswith("a proxy")
        url = stack.enter_context(
            dropping_options(postgres_url) if is_proxy else pgbouncer(postgres_url, tmp_path, pool_size=20)
        )
        engine = open_engine(postgres_url, lock_wait_seconds=30)
        stack.callback(engine.dispose)
        accounts = open_accounts(engine, home)
        lanes = []
        for number in range(scale(1, 5)):
            vendor = Vendor(home, free_port(), {"VL2V_VENDOR_DATABASE_URL": url, "VL2V_VENDOR_LOG_LEVEL": "error"})
            stack.callback(vendor.stop)
            vendor.start()
            account = accounts.create_account(f"account {number}", budget_units=1_000_000)
            lanes.append(Lane(vendor, engine, account, Customer(vendor.url, new_key(accounts, account))))
        yield lanes


@pytest.mark.timeout(900)
@pytest.mark.anyio
async def test_what_was_refused_is_not_charged_when_the_lock_is_gone(
    lanes: list[Lane], scale: Callable[[int, int], int], prove: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    locks, seconds = scale(2, 10), scale(3, 12)
    about = f"PostgreSQL behind {request.node.callspec.id}, {locks * len(lanes)} locks of {seconds} s"

    async def suffer(lane: Lane) -> None:
        async with lane.customer:
            for number in range(locks):
                sys.stderr.write(f"\r{lane.account.name}: lock {number + 1}")
                await lane.order_while_locked(number, seconds)

    async with asyncio.TaskGroup() as crowd:
        for lane in lanes:
            crowd.create_task(suffer(lane))
    refused = [answer for lane in lanes for answer in lane.refused]
    assert {answer.status for answer in refused} == {503}
    charged = sum(lane.count_used() - lane.sold_units for lane in lanes)
    prove(f"{about}: units charged of {len(refused)} orders that were refused", charged, goal="0", met=charged == 0)
    assert problems_of(lanes[0].engine) == []
    verified = lanes[0].vendor.command("ledger", "verify")
    assert verified.code == 0, verified.err
