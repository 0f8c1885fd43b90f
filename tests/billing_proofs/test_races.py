"""64 clients at once want twice what a budget holds: exactly that is billed, and the bill explains each answer."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from support.ledger.ledger_shop import problems_of
from support.vendor.http_customers import Answer, Bill, Customer, new_key, open_accounts
from support.vendor.live_parties import Vendor, free_port
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts

CLIENTS = 64
LIMIT = 128
LARGEST_BATCH = 6
REPLICAS = 3

SAME_ITEMS = [f"same {number}" for number in range(LARGEST_BATCH)]

Batch = list[str]
Orders = list[tuple[int, list[list[Batch]]]]
"""For each key its limit, and the batches of each of its clients."""


@dataclass
class Market:
    """The vendor processes on one database, and its staff's desk."""

    kind: str
    vendors: list[Vendor]
    engine: Engine
    accounts: SqlAccounts
    races: int = 0


@dataclass(frozen=True)
class Event:
    """One order and its answer."""

    names: Batch
    answer: Answer

    @property
    def request_id(self) -> str:
        return str(self.answer.body["request_id"])


@dataclass(frozen=True)
class Race:
    """What the clients saw, and the bill after it."""

    events: list[Event]
    bill: Bill
    limit_units: int

    @property
    def billed_units(self) -> int:
        return sum(row["entry"]["units"] for row in self.bill.charges)

    @property
    def units_by_key(self) -> Counter[str]:
        units: Counter[str] = Counter()
        for row in self.bill.charges:
            units[row["entry"]["api_key_id"]] += row["entry"]["units"]
        return units

    def explain(self) -> None:
        """Every answer follows from the statement, and every charge has its answer."""
        charges = {row["entry"]["request_id"]: row for row in self.bill.charges}
        assert self.bill.count_breaks() == 0
        assert self.bill.count_lost(event.answer.receipt for event in self.events if event.answer.receipt) == 0
        assert set(self.bill.charged_keys.values()) <= {1}
        assert self.bill.head["used_units"] == self.billed_units <= self.limit_units
        for event in self.events:
            charge = charges.pop(event.request_id, None)
            if event.answer.status == 200:
                billed = [item["item_key"] for item in event.answer.delivered if item["status"] == "billed"]
                assert billed == ([] if charge is None else [item["item_key"] for item in charge["items"]])
            elif event.answer.status == 402:
                self._explain_refusal(event)
                assert charge is None
            else:
                # It was told that the ledger did not answer in time: whether it was billed is not known, and allowed.
                assert event.answer.status == 503
        assert charges == {}

    def _explain_refusal(self, event: Event) -> None:
        """The budget could not hold the order then, and what it had left can only have become less."""
        assert event.answer.body["remaining_units"] < len(event.names)
        if event.answer.body["budget"] == "account":
            assert self.limit_units - self.billed_units <= event.answer.body["remaining_units"]


@dataclass(frozen=True)
class Contest:
    """What the clients of each key order, and what must hold afterwards, whatever the order of events."""

    name: str
    orders: Callable[[int], Orders]
    holds: Callable[[Race], bool]
    allow_partial: bool = False


CONTESTS = (
    Contest(
        "demand 2N, single queries: exactly N billed",
        lambda _run: [(LIMIT, _singles(2 * LIMIT))],
        lambda race: race.billed_units == LIMIT,
    ),
    Contest(
        # All or nothing: what is left in the end is less than some refused batch.
        "demand 2N, batches: never above N",
        lambda run: [(LIMIT, _batches(2 * LIMIT, seed=run))],
        lambda race: LIMIT - LARGEST_BATCH < race.billed_units <= LIMIT,
    ),
    Contest(
        "demand 2N, batches that may be cut: exactly N billed",
        lambda run: [(LIMIT, _batches(2 * LIMIT, seed=run))],
        lambda race: race.billed_units == LIMIT,
        allow_partial=True,
    ),
    Contest(
        "demand 2N, two keys with budgets of N/4 and 3N/4: each billed exactly",
        lambda run: [
            (LIMIT // 4, _batches(LIMIT // 2, seed=run, clients=CLIENTS // 2, prefix="small")),
            (3 * LIMIT // 4, _batches(3 * LIMIT // 2, seed=run, clients=CLIENTS // 2, prefix="large")),
        ],
        lambda race: sorted(race.units_by_key.values()) == [LIMIT // 4, 3 * LIMIT // 4],
        allow_partial=True,
    ),
    Contest(
        "64 buyers of the same items: each billed once",
        lambda run: [(LIMIT, [[_mixed(SAME_ITEMS, seed=client + run)] for client in range(CLIENTS)])],
        lambda race: race.billed_units == len(SAME_ITEMS),
    ),
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    """One vendor process on SQLite, or three on one PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    settings = {"VL2V_VENDOR_DATABASE_URL": url, "VL2V_VENDOR_LOG_LEVEL": "warning"}
    home = tmp_path / "home"
    home.mkdir()
    engine = open_engine(url, lock_wait_seconds=30)
    accounts = open_accounts(engine, home)
    count = REPLICAS if request.param == "postgres" else 1
    vendors = [Vendor(home, free_port(), settings) for _ in range(count)]
    try:
        for vendor in vendors:
            vendor.start()
        yield Market(f"{request.param}, {count} processes", vendors, engine, accounts)
    finally:
        engine.dispose()
        for vendor in vendors:
            vendor.stop()


@pytest.mark.timeout(3600)
def test_no_race_for_a_budget_moves_its_limit(
    market: Market, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    runs = scale(1, 20)
    for contest in CONTESTS:
        good = sum(contest.holds(_race(market, contest, run)) for run in range(runs))
        prove(f"{market.kind}: {contest.name}", good, goal=f"{runs} of {runs} runs", met=good == runs)
    assert problems_of(market.engine) == []


def _singles(demand: int) -> list[list[Batch]]:
    """The orders of each client, one item each, `demand` items in all."""
    return [[[f"{client} {number}"] for number in range(demand // CLIENTS)] for client in range(CLIENTS)]


def _mixed(names: Batch, *, seed: int) -> Batch:
    return random.Random(seed).sample(names, len(names))


def _batches(demand: int, *, seed: int, clients: int = CLIENTS, prefix: str = "") -> list[list[Batch]]:
    """The orders of each client, of random sizes, at least `demand` items in all."""
    dice = random.Random(seed)
    orders: list[list[Batch]] = [[] for _ in range(clients)]
    ordered, turn = 0, 0
    while ordered < demand or turn < clients:
        size = dice.randint(1, LARGEST_BATCH)
        orders[turn % clients].append([f"{prefix}{turn} {number}" for number in range(size)])
        ordered += size
        turn += 1
    return orders


def _race(market: Market, contest: Contest, run: int) -> Race:
    """Let the clients loose on a new account; a key's limit is its own only if there are several keys."""
    market.races += 1
    sys.stderr.write(f"\r{market.kind}: race {market.races}")
    orders = contest.orders(run)
    limit = sum(units for units, _ in orders)
    account = market.accounts.create_account(f"race {market.races}", budget_units=limit)
    clients: list[tuple[Customer, list[Batch]]] = []
    for units, batches_of_clients in orders:
        secret = new_key(market.accounts, account, limit_units=None if len(orders) == 1 else units)
        for batches in batches_of_clients:
            vendor = market.vendors[len(clients) % len(market.vendors)]
            clients.append((Customer(vendor.url, secret), batches))

    async def compete() -> Race:
        events: list[Event] = []
        async with AsyncExitStack() as stack:
            for customer, _ in clients:
                await stack.enter_async_context(customer)
            async with asyncio.TaskGroup() as crowd:
                for customer, batches in clients:
                    crowd.create_task(_buy(customer, batches, events, allow_partial=contest.allow_partial))
            return Race(events, await clients[0][0].bill(), limit)

    race = asyncio.run(compete())
    race.explain()
    return race


async def _buy(customer: Customer, batches: list[Batch], events: list[Event], *, allow_partial: bool) -> None:
    """Send one batch after the other, each until it is answered for good."""
    for batch in batches:
        status = 503
        while status == 503:
            answer = await customer.order(batch, allow_partial=allow_partial)
            events.append(Event(batch, answer))
            status = answer.status
