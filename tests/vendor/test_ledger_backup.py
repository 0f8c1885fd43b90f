"""Copies of a SQLite ledger: taken while it sells, put back whole, and never behind the clients' backs."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from support.ledger.ledger_shop import Shop, fixed_signer, open_shop, rotated_signer
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.host import DatabaseReplaced, ServerAlreadyRunning, in_use, replace_durably, server_lock
from vl2v_vendor.keys.published_heads import PublishedHead
from vl2v_vendor.ledger_sql import sqlite_backup
from vl2v_vendor.ledger_sql.database import open_engine, writing
from vl2v_vendor.ledger_sql.key_publication import WrongSecrets
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.ledger_sql.sqlite_backup import BackupRefused, LedgerCopy, back_up, require_sqlite, restore
from vl2v_vendor.ledger_sql.tables import LedgerUnprotected

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """SQLite only: PostgreSQL has tools of its own."""
    opened = open_engine(sqlite_url)
    yield opened
    opened.dispose()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "vendor.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "monday.db"


@pytest.fixture
def backed_up(shop: Shop, database: Path, copy: Path) -> LedgerCopy:
    """A backup of two entries, after which the shop sold one more image and was closed."""
    shop.charge(shop.order("a"))
    copy.parent.mkdir()
    made = back_up(database, copy)
    shop.charge(shop.order("b"))
    shop.engine.dispose()
    return made


def head(shop: Shop) -> PublishedHead:
    async def story(ledger: SqlLedger) -> PublishedHead:
        found = await ledger.head(shop.account.id)
        return PublishedHead(found.seq, found.entry_hash)

    return shop.run(story)


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def assert_unchanged(shop: Shop, database: Path) -> None:
    """Nothing but the database, its locks and the backups is there, and the last sale is still in it."""
    assert head(shop).seq == 3
    shop.engine.dispose()
    there = {path.name for path in database.parent.iterdir()}
    assert there - {"vendor.db.use"} == {"backups", "vendor.db", "vendor.db.lock"}


async def test_a_backup_is_taken_beside_a_ledger_that_goes_on_selling(shop: Shop, database: Path, copy: Path) -> None:
    copy.parent.mkdir()
    shop.accounts.top_up(shop.account, 10_000)

    async with shop.open_ledger() as ledger:
        stop, sold = asyncio.Event(), 0

        async def sell() -> None:
            nonlocal sold
            while not stop.is_set():
                await ledger.charge(shop.order(f"image {sold}"))
                sold += 1

        selling = asyncio.create_task(sell())
        while sold < 5:
            await asyncio.sleep(0.001)
        before = sold
        made = await asyncio.to_thread(back_up, database, copy)
        while sold < before + 5:
            await asyncio.sleep(0.001)
        stop.set()
        await selling
        assert before + 2 <= made.heads[shop.account.id].seq <= sold + 2
    assert [path.name for path in copy.parent.iterdir()] == ["monday.db"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    engine = open_engine(f"sqlite:///{copy}")
    with snapshot(engine) as connection:
        report = verify_ledger(connection)
    engine.dispose()
    assert report.problems == []
    assert report.entries == made.heads[shop.account.id].seq


def test_a_backup_is_never_overwritten_and_never_half_made(backed_up: LedgerCopy, database: Path, copy: Path) -> None:
    with pytest.raises(BackupRefused, match=r"monday\.db exists"):
        back_up(database, copy)
    with pytest.raises(BackupRefused, match="no database"):
        back_up(database.with_name("none.db"), copy.with_name("tuesday.db"))
    page = database.stat().st_size // 4096 // 2
    with database.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"x" * 8192)
    with pytest.raises(BackupRefused, match=r"damaged|malformed"):
        back_up(database, copy.with_name("tuesday.db"))
    assert [path.name for path in copy.parent.iterdir()] == ["monday.db"]


@pytest.mark.parametrize("act", ["backup", "restore"])
def test_postgresql_is_sent_to_its_own_tools(act: str) -> None:
    with pytest.raises(BackupRefused, match=r"pg_dump.*pg_basebackup"):
        require_sqlite("postgresql://vendor@db/ledger", act)


def test_a_restore_brings_the_books_back_and_keeps_the_replaced_ones(
    shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path
) -> None:
    after_sale = head(shop)
    shop.engine.dispose()
    restored = restore(copy, database, rotated_signer())
    assert (restored.ledger_id, restored.heads) == (backed_up.ledger_id, backed_up.heads)
    assert head(shop) == restored.heads[shop.account.id]
    assert restored.replaced is not None
    assert restored.replaced.name.startswith("vendor.db.replaced-2")
    kept = open_engine(f"sqlite:///{restored.replaced}")
    with snapshot(kept) as connection:
        report = verify_ledger(connection)
    kept.dispose()
    assert (report.problems, report.entries) == ([], after_sale.seq)


def test_a_restore_into_an_empty_place_and_over_a_damaged_database(
    shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path
) -> None:
    for suffix in ("-wal", "-shm"):
        database.with_name(f"vendor.db{suffix}").unlink(missing_ok=True)
    database.write_bytes(b"no database any more" * 1000)
    database.with_name("vendor.db-wal").write_bytes(b"an old log")
    restored = restore(copy, database, shop.signer)
    assert restored.replaced is not None
    assert restored.replaced.read_bytes()[:20] == b"no database any more"
    assert restored.replaced.with_name(f"{restored.replaced.name}-wal").read_bytes() == b"an old log"
    assert head(shop) == backed_up.heads[shop.account.id]
    shop.engine.dispose()
    database.unlink()
    assert restore(copy, database, shop.signer).replaced is None
    assert head(shop) == backed_up.heads[shop.account.id]


def test_a_restore_waits_for_nobody(shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path) -> None:
    with server_lock(Path(f"{database}.lock")), pytest.raises(ServerAlreadyRunning):
        restore(copy, database, shop.signer)
    with writing(shop.engine).begin() as connection:
        connection.execute(text("UPDATE budgets SET used_units = used_units"))
        with pytest.raises(BackupRefused, match="another program uses"):
            restore(copy, database, shop.signer)
    shop.engine.dispose()
    assert_unchanged(shop, database)


def test_nobody_works_on_a_database_that_is_being_replaced(
    shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_use(database), in_use(database), pytest.raises(DatabaseReplaced, match="a command is at work"):
        restore(copy, database, shop.signer)
    shop.engine.dispose()

    def work_meanwhile(source: Path, target: Path) -> None:
        with pytest.raises(DatabaseReplaced, match="is replacing it"), in_use(database):
            pass
        replace_durably(source, target)

    monkeypatch.setattr(sqlite_backup, "replace_durably", work_meanwhile)
    database.chmod(0o640)
    restore(copy, database, rotated_signer())
    assert database.stat().st_mode & 0o777 == 0o640
    with in_use(database):
        pass
    Path(f"{database}.use").chmod(0o444)  # another user's
    with in_use(database):
        pass
    with pytest.raises(VendorError, match="cannot be made"), in_use(Path("/proc/vendor.db")):
        pass


def test_what_is_no_backup_of_this_ledger_is_refused(
    shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path, migrated_sqlite: Path
) -> None:
    with pytest.raises(BackupRefused, match="no file"):
        restore(copy.with_name("none.db"), database, shop.signer)
    with pytest.raises(WrongSecrets, match=r"vendor-secrets\.json"):
        restore(copy, database, fixed_signer(seed=9))
    text_file, empty, unused, other = (copy.with_name(name) for name in ("a.txt", "empty.db", "unused.db", "other.db"))
    text_file.write_text("no database" * 1000)
    change(empty, "CREATE TABLE something (id INTEGER)")
    shutil.copy(migrated_sqlite, unused)
    with pytest.raises(BackupRefused, match="cannot be copied"):
        restore(text_file, database, shop.signer)
    with pytest.raises(BackupRefused, match="no backup of a vl2v ledger"):
        restore(empty, database, shop.signer)
    with pytest.raises(WrongSecrets):
        restore(unused, database, shop.signer)
    shutil.copy(migrated_sqlite, other)
    change(other, "UPDATE vendor SET ledger_id = 'ledger_other'")
    other_engine = open_engine(f"sqlite:///{other}")
    open_shop(other_engine)
    other_engine.dispose()
    with pytest.raises(BackupRefused, match="is of ledger ledger_other"):
        restore(other, database, shop.signer)
    assert_unchanged(shop, database)


def test_a_backup_that_was_tampered_with_is_refused(
    shop: Shop, backed_up: LedgerCopy, database: Path, copy: Path
) -> None:
    edited, unprotected = copy.with_name("edited.db"), copy.with_name("unprotected.db")
    shutil.copy(copy, edited)
    change(edited, "UPDATE budgets SET limit_units = 11")
    with pytest.raises(BackupRefused, match=r"does not add up.*budget_mismatch"):
        restore(edited, database, shop.signer)
    shutil.copy(copy, unprotected)
    change(unprotected, "DROP TRIGGER ledger_refuse_delete")
    with pytest.raises(LedgerUnprotected, match="ledger_refuse_delete"):
        restore(unprotected, database, shop.signer)
    assert_unchanged(shop, database)
