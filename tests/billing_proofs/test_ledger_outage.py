"""The ledger locked, full or gone: every order is refused in time, nothing is sold, and it heals by itself."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from support.ledger.ledger_shop import item_key, problems_of
from support.vendor.http_customers import Answer, Customer, new_key, open_accounts
from support.vendor.live_parties import Vendor, free_port
from support.vendor.outages import disk_full, own_postgres, rows_locked, server_stopped, sqlite_locked
from support.vendor.poolers import pgbouncer
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.migrations import upgrade

ACCOUNTS, BUYERS_PER_ACCOUNT = 2, 4
LONGEST_REFUSAL_SECONDS = 2.0
LONGEST_RECOVERY_SECONDS = 5.0


@dataclass
class Buyer:
    """Orders one new item after the other, and in the end again what was refused."""

    name: str
    customer: Customer
    refused: list[str] = field(default_factory=list)
    bought: set[str] = field(default_factory=set)
    answers: list[Answer] = field(default_factory=list)

    async def buy_new(self, number: int) -> Answer:
        name = f"{self.name} {number}"
        answer = await self.customer.order([name])
        if answer.status == 200:
            self.bought.add(item_key(name))
        else:
            self.refused.append(name)
        return answer

    async def suffer(self, over: asyncio.Event) -> None:
        """Order all the time, and keep the answers that came before it was over."""
        number = 1
        while not over.is_set():
            answer = await self.buy_new(number)
            if not over.is_set():
                self.answers.append(answer)
            number += 1
            await asyncio.sleep(0.02)

    async def catch_up(self, count: int) -> None:
        """Send again the first `count` items that were refused, until they come."""
        batch = self.refused[:count]
        while batch and (await self.customer.order(batch)).status != 200:
            await asyncio.sleep(0.02)
        self.bought |= {item_key(name) for name in batch}
        self.refused = self.refused[count:]


@dataclass
class Scene:
    """A running vendor, its database, and how to take that away."""

    kind: str
    vendor: Vendor
    engine: Engine
    outage: Callable[[], AbstractContextManager[None]]

    @property
    def can_be_read(self) -> bool:
        return not self.kind.endswith("stopped")

    @property
    def shows(self) -> bool:
        """Whether `/readyz` sees it: rows that somebody holds are no fault of the database."""
        return not self.kind.endswith("rows are locked")

    def count_used(self) -> int:
        with self.engine.connect() as connection:
            query = text("SELECT sum(used_units) FROM budgets WHERE api_key_id IS NULL")
            return int(connection.execute(query).scalar_one())


@pytest.fixture(
    name="scene",
    params=[
        "sqlite, another writer holds the lock",
        "sqlite, the disk takes no more writes",
        pytest.param("postgres, the rows are locked", marks=pytest.mark.postgres),
        pytest.param("postgres, the server is stopped", marks=pytest.mark.postgres),
        pytest.param("postgres behind PgBouncer, the server is stopped", marks=pytest.mark.postgres),
    ],
)
def open_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    kind: str = request.param
    if kind.endswith("stopped"):
        with own_postgres() as server, ExitStack() as stack:
            url = server.get_uri()
            pooled = stack.enter_context(pgbouncer(url, tmp_path, pool_size=10)) if "PgBouncer" in kind else None
            yield from _open_scene(kind, url, tmp_path, lambda _scene: server_stopped(server), pooled=pooled)
    elif kind.startswith("postgres"):
        url = request.getfixturevalue("postgres_url")
        yield from _open_scene(kind, url, tmp_path, lambda scene: rows_locked(scene.engine))
    elif kind.endswith("lock"):
        url = request.getfixturevalue("sqlite_url")
        yield from _open_scene(kind, url, tmp_path, lambda scene: sqlite_locked(scene.engine))
    else:
        if not hasattr(resource, "prlimit"):
            pytest.skip("filling another process's disk needs prlimit (Linux)")
        url = request.getfixturevalue("sqlite_url")
        yield from _open_scene(kind, url, tmp_path, lambda scene: disk_full(_pid(scene.vendor)))


def _open_scene(
    kind: str,
    url: str,
    home: Path,
    take_away: Callable[[Scene], AbstractContextManager[None]],
    *,
    pooled: str | None = None,
) -> Iterator[Scene]:
    engine = open_engine(url, lock_wait_seconds=30)
    upgrade(engine)
    settings = {"VL2V_VENDOR_DATABASE_URL": pooled or url, "VL2V_VENDOR_LOG_LEVEL": "error"}
    scene = Scene(kind, Vendor(home, free_port(), settings), engine, lambda: take_away(scene))
    try:
        yield scene
    finally:
        scene.vendor.stop()
        engine.dispose()


@pytest.mark.timeout(600)
@pytest.mark.anyio
async def test_an_outage_of_the_ledger_sells_nothing_and_passes(
    scene: Scene, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    seconds = scale(3, 60)
    told = f"{scene.kind} for {seconds} s"
    groups = _open_shop(scene)
    buyers = [buyer for group in groups for buyer in group]
    async with AsyncExitStack() as stack:
        for buyer in buyers:
            await stack.enter_async_context(buyer.customer)
        ready, billed, over_at = await _go_through(scene, buyers, seconds)
        answers = [answer for buyer in buyers for answer in buyer.answers]
        assert all(buyer.answers for buyer in buyers)
        _prove_refusals(prove, told, answers, billed)
        if scene.shows:
            assert {answer.status for answer in ready} == {503}
        slowest = max(answer.seconds for answer in answers + ready)
        goal = LONGEST_REFUSAL_SECONDS
        prove(f"{told}: slowest refusal, s", round(slowest, 2), goal=f"<= {goal}", met=slowest <= goal)

        await _recover(buyers)
        seconds_to_recover = time.monotonic() - over_at
        goal = LONGEST_RECOVERY_SECONDS
        prove(f"{told}: recovery, s", round(seconds_to_recover, 2), goal=f"<= {goal}", met=seconds_to_recover <= goal)
        assert scene.vendor.process is not None
        assert scene.vendor.process.poll() is None, "it recovered, but not without a restart"
        for buyer in buyers:
            while buyer.refused:
                await buyer.catch_up(100)
        drift = [await _drift(group) for group in groups]
        prove(f"{told}: drift, units", sum(drift), goal="0", met=not any(drift))
    assert problems_of(scene.engine) == []


def _prove_refusals(prove: Callable[..., None], told: str, answers: list[Answer], billed: int) -> None:
    prove(f"{told}: orders refused", len(answers), goal="> 0", met=len(answers) > 0)
    sold = sum(len(answer.delivered) for answer in answers)
    prove(f"{told}: vectors given away", sold, goal="0", met=sold == 0)
    prove(f"{told}: units billed meanwhile", billed, goal="0", met=billed == 0)
    others = [answer for answer in answers if answer.status != 503 or not answer.retry_after]
    prove(f"{told}: answers other than 503 with Retry-After", len(others), goal="0", met=not others)


def _open_shop(scene: Scene) -> list[list[Buyer]]:
    """The buyers of each account, before the vendor is started."""
    accounts = open_accounts(scene.engine, scene.vendor.home)
    groups = []
    for number in range(ACCOUNTS):
        account = accounts.create_account(f"account {number}", budget_units=1_000_000)
        secrets = [new_key(accounts, account) for _ in range(BUYERS_PER_ACCOUNT)]
        groups.append(
            [Buyer(f"{number}.{place}", Customer(scene.vendor.url, secret)) for place, secret in enumerate(secrets)]
        )
    return groups


async def _go_through(scene: Scene, buyers: list[Buyer], seconds: int) -> tuple[list[Answer], int, float]:
    """Sell something, take the database away and give it back.

    Returns what `/readyz` said, the units billed meanwhile, and when it was over.
    """
    scene.vendor.start()
    for buyer in buyers:
        assert (await buyer.buy_new(0)).status == 200
    used_before = scene.count_used()
    over = asyncio.Event()
    ready = []
    async with asyncio.TaskGroup() as crowd:
        with scene.outage():
            for buyer in buyers:
                crowd.create_task(buyer.suffer(over))
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                ready.append(await buyers[0].customer.get("/readyz"))
                assert (await buyers[0].customer.get("/healthz")).status == 200
                await asyncio.sleep(0.1)
            sys.stderr.write(f"\n{scene.kind}: {sum(len(buyer.answers) for buyer in buyers)} refusals\n")
            over.set()
            billed = scene.count_used() - used_before if scene.can_be_read else 0
        over_at = time.monotonic()
    return ready, billed, over_at


async def _recover(buyers: list[Buyer]) -> None:
    """Let everybody have one of the items that were refused."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as crowd:
        for buyer in buyers:
            crowd.create_task(buyer.catch_up(1))


async def _drift(group: list[Buyer]) -> int:
    """How far the account's budget and its statement are from what its buyers have."""
    bill = await group[0].customer.bill()
    bought = {key for buyer in group for key in buyer.bought}
    assert bill.count_breaks() == 0
    return abs(int(bill.head["used_units"]) - len(bought)) + len(bill.charged_keys.keys() ^ bought)


def _pid(vendor: Vendor) -> int:
    assert vendor.process is not None
    return vendor.process.pid
