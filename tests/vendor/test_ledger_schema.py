"""The schema: migrated once whoever comes first, equal to the tables in the code, and append-only for real."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from support.ledger.ledger_shop import Shop
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.keys.published_heads import HeadsFile
from vl2v_vendor.ledger_sql.account_rows import _refunded_units
from vl2v_vendor.ledger_sql.database import DatabaseError, is_postgresql, open_engine, writing
from vl2v_vendor.ledger_sql.migrations import HEAD_REVISION, upgrade
from vl2v_vendor.ledger_sql.tables import _POSTGRES_FUNCTION, APPEND_ONLY_TABLES, LedgerUnprotected, metadata

_COLUMN_OF = {
    "ledger": "units",
    "charge_items": "units",
    "prices": "unit_price_micro",
    "admin_log": "created_at",
    "entry_signatures": "signature",
    "act_signatures": "signature",
}


@pytest.fixture
def sold(shop: Shop) -> Shop:
    """A shop whose append-only tables all have rows."""
    shop.charge(shop.order("cat", "dog"))
    return shop


def change(engine: Engine, statement: str) -> None:
    with writing(engine).begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_no_row_of_the_ledger_can_be_changed_or_deleted(sold: Shop, table: str) -> None:
    column = _COLUMN_OF[table]
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match="append-only"):
            change(sold.engine, statement)


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_nor_replaced_nor_truncated(sold: Shop, table: str) -> None:
    on_postgres = is_postgresql(sold.engine)
    statement = f"TRUNCATE {table} CASCADE" if on_postgres else f"REPLACE INTO {table} SELECT * FROM {table}"
    with pytest.raises(DBAPIError, match="append-only"):
        change(sold.engine, statement)


def test_budgets_cannot_leave_their_limits(shop: Shop) -> None:
    for statement in ("UPDATE budgets SET used_units = limit_units + 1", "UPDATE budgets SET used_units = -1"):
        with pytest.raises(DBAPIError, match="within_limit"):
            change(shop.engine, statement)


def test_a_missing_trigger_is_found_at_start_up(engine: Engine) -> None:
    on_table = " ON ledger" if is_postgresql(engine) else ""
    change(engine, f"DROP TRIGGER ledger_refuse_delete{on_table}")
    with pytest.raises(LedgerUnprotected, match="ledger_refuse_delete"):
        upgrade(engine)


def test_a_trigger_with_another_body_is_found_at_start_up(engine: Engine) -> None:
    if is_postgresql(engine):
        replaced = [_POSTGRES_FUNCTION.replace("RAISE EXCEPTION", "RAISE NOTICE")]
    else:
        make = "CREATE TRIGGER ledger_refuse_update BEFORE UPDATE ON ledger BEGIN SELECT 1; END"
        replaced = ["DROP TRIGGER ledger_refuse_update", make]
    for statement in replaced:
        change(engine, statement)
    with pytest.raises(LedgerUnprotected, match=r"ledger_refuse_update.* or altered"):
        upgrade(engine)


def test_a_trigger_with_a_condition_is_found_at_start_up(engine: Engine) -> None:
    on_postgres = is_postgresql(engine)
    change(engine, f"DROP TRIGGER ledger_refuse_delete{' ON ledger' if on_postgres else ''}")
    body = "EXECUTE FUNCTION vl2v_refuse_change()" if on_postgres else "BEGIN SELECT RAISE(ABORT, 'no'); END"
    change(engine, f"CREATE TRIGGER ledger_refuse_delete BEFORE DELETE ON ledger WHEN (1 = 0) {body}")
    with pytest.raises(LedgerUnprotected, match="ledger_refuse_delete"):
        upgrade(engine)


def test_a_new_sqlite_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        engine = open_engine(f"sqlite:///{tmp_path / 'new' / 'vendor.db'}")
        assert not (tmp_path / "new" / "vendor.db").exists()
        upgrade(engine)
        HeadsFile(tmp_path / "new" / "heads.json", "ledger_1").merge({})
        files = [tmp_path / "new", *(tmp_path / "new").iterdir()]
        assert {"vendor.db", "vendor.db-wal", "vendor.db-shm", "heads.json"} <= {file.name for file in files}
        assert {file.name: oct(stat.S_IMODE(file.stat().st_mode) & 0o077) for file in files} == {
            file.name: "0o0" for file in files
        }
        engine.dispose()
    finally:
        os.umask(before)


def test_the_migrations_make_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    if is_postgresql(engine):  # has given one foreign key up, see migration 0003
        act, constraint = differences.pop()
        assert (act, constraint.name) == ("add_fk", "fk_charge_items_ledger")
    assert differences == []


def test_a_refund_reads_the_refunds_of_its_entry_alone(engine: Engine) -> None:
    asked: list[tuple[str, Any]] = []
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
        assert _refunded_units(connection, "acct_none", 7) == 0
        statement, parameters = next(one for one in asked if "FROM ledger" in one[0])
        explain = "EXPLAIN QUERY PLAN"
        if is_postgresql(engine):
            explain = "EXPLAIN"
            connection.execute(text("SET enable_seqscan = off"))
        steps = connection.exec_driver_sql(f"{explain} {statement}", parameters).fetchall()
    assert any("ix_ledger_refunds" in str(step) for step in steps)


def test_the_newest_revision_is_reached(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == HEAD_REVISION


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fresh' / 'vendor.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


def test_many_may_start_on_a_fresh_database_at_once(empty_url: str) -> None:
    engines = [open_engine(empty_url, lock_wait_seconds=30) for _ in range(4)]
    barrier = threading.Barrier(len(engines))
    failures: list[BaseException] = []

    def start(engine: Engine) -> None:
        barrier.wait()
        try:
            upgrade(engine)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with engines[0].connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM vendor")).scalar_one() == 1
    for engine in engines:
        engine.dispose()


def test_sqlite_is_durable_and_guarded_on_every_connection(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1, "busy_timeout": 800}
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted
    engine.dispose()


def test_a_writer_takes_the_lock_when_it_begins(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url, lock_wait_seconds=0)
    with writing(engine).begin(), engine.connect() as reader:
        reader.execute(text("SELECT * FROM vendor")).one()
        with pytest.raises(DBAPIError, match="locked"), writing(engine).begin():
            pass
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "vendor.db", ""])
def test_an_unusable_database_url_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError):
        open_engine(url)


def test_an_unreachable_server_is_told_without_its_password() -> None:
    engine = open_engine("postgresql://vendor:s3cret@127.0.0.1:1/ledger")
    with pytest.raises(LedgerUnavailable) as refusal:
        upgrade(engine)
    assert "s3cret" not in str(refusal.value)
    engine.dispose()
