"""The limits of a transaction on PostgreSQL: in force in every one, kept in no session, and checked at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from support.ledger.ledger_shop import open_shop, problems_of
from support.vendor.outages import rows_locked
from support.vendor.poolers import dropping_options, pgbouncer
from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.ledger_sql.database import DatabaseError, open_engine, writing
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts

pytestmark = pytest.mark.postgres

OPENERS: dict[str, Callable[[Engine], AbstractContextManager[Connection]]] = {
    "read": lambda engine: engine.connect(),
    "snapshot": snapshot,
    "write": lambda engine: writing(engine).begin(),
}


@pytest.fixture(name="url", params=["direct", "a proxy that drops options", "PgBouncer in transaction mode"])
def open_way(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[str]:
    """URL of a migrated database, reached in three ways."""
    if request.param == "direct":
        yield postgres_url
        return
    is_proxy = request.param.startswith("a proxy")
    with dropping_options(postgres_url) if is_proxy else pgbouncer(postgres_url, tmp_path) as url:
        yield url


@contextmanager
def opened(url: str, *, lock_wait_seconds: float = 0.8) -> Iterator[Engine]:
    engine = open_engine(url, lock_wait_seconds=lock_wait_seconds)
    try:
        yield engine
    finally:
        engine.dispose()


def shown(connection: Connection, *names: str) -> list[str]:
    return [str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]


@pytest.mark.parametrize(("seconds", "wait"), [(0.8, "800ms"), (30.0, "30s")])
@pytest.mark.parametrize("kind", OPENERS)
def test_every_transaction_has_its_limits_and_leaves_none_in_the_session(
    url: str, kind: str, seconds: float, wait: str
) -> None:
    with opened(url, lock_wait_seconds=seconds) as engine:
        for _ in range(2):
            with OPENERS[kind](engine) as connection:
                assert shown(connection, "lock_timeout", "synchronous_commit") == [wait, "on"]
                isolation = "repeatable read" if kind == "snapshot" else "read committed"
                assert shown(connection, "transaction_isolation") == [isolation]
        with engine.connect() as connection:
            outside = connection.connection.driver_connection
            assert outside is not None
            assert outside.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_the_writer_also_limits_how_long_its_commit_may_take_to_arrive(url: str) -> None:
    begun: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        begun.append(statement)

    with opened(url) as engine:
        shop = open_shop(engine)
        event.listen(engine, "before_cursor_execute", keep)
        shop.charge(shop.order("cat"))
    assert any("SET LOCAL idle_in_transaction_session_timeout = 500" in statement for statement in begun)


@pytest.mark.anyio
async def test_replicas_may_share_their_sessions(url: str) -> None:
    """Each charges more often than its driver waits before it prepares a statement."""

    with opened(url) as engine, opened(url) as other_engine:
        shop = open_shop(engine, budget_units=100)
        async with shop.open_ledger() as one, replace(shop, engine=other_engine).open_ledger() as other:
            for number in range(12):
                for name, ledger in (("one", one), ("other", other)):
                    await ledger.charge(shop.order(f"{name} {number}"))
                    await ledger.find_key("0" * 64)
                    await ledger.totals(shop.account.id)
        assert shop.used_units() == 24
        assert problems_of(engine) == []


def test_the_staff_wait_longer_for_a_lock_than_the_server(url: str, postgres_url: str) -> None:
    with opened(postgres_url) as direct, opened(url, lock_wait_seconds=30) as staff, opened(url) as server:
        shop = open_shop(direct, budget_units=100)
        desk = SqlAccounts(staff, signer=shop.signer, clock=shop.clock)
        with ThreadPoolExecutor(1) as pool:
            with rows_locked(direct):
                waiting = pool.submit(desk.top_up, shop.account, 5)
                with pytest.raises(LedgerUnavailable):
                    replace(shop, engine=server).charge(shop.order("cat"))
                assert not waiting.done()
            waiting.result()
        assert shop.accounts.find_account("acme").budget.limit_units == 105
        assert shop.used_units() == 0


@pytest.mark.parametrize("name", ["lock_timeout", "synchronous_commit"])
def test_a_database_that_ignores_a_limit_is_refused_at_the_start(postgres_url: str, name: str) -> None:
    def ignore(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> Any:
        return statement.replace(f"SET LOCAL {name}", "SET LOCAL vl2v.ignored"), parameters

    with opened(postgres_url) as engine:
        with writing(engine).begin() as connection:
            connection.execute(text(f"ALTER DATABASE {engine.url.database} SET synchronous_commit = off"))
        engine.dispose()
        upgrade(engine)
        event.listen(engine, "before_cursor_execute", ignore, retval=True)
        with pytest.raises(DatabaseError, match=rf"SET LOCAL {name} = .* has no effect.*pool_mode = transaction"):
            upgrade(engine)


def test_a_pooler_without_transactions_is_refused_at_the_start(postgres_url: str, tmp_path: Path) -> None:
    with (
        pgbouncer(postgres_url, tmp_path, pool_mode="statement") as url,
        opened(url) as engine,
        pytest.raises(VendorError, match="transaction"),
    ):
        upgrade(engine)
