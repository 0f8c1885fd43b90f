"""A database that lost its write-ahead log, or whose file is another one, is not taken for a new ledger."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from support.ledger.ledger_shop import RETENTION_SECONDS, FakeClock, Shop, fixed_signer, item_key, problems_of
from support.vendor.live_parties import Vendor, free_port
from support.vendor.serving_shop import images, png
from support.vendor.vendor_shell import invoke
from vl2v_vendor.domain.errors import LedgerUnavailable, NotFound
from vl2v_vendor.keys.published_heads import HeadsFile, PublishedHead
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.restoration import LedgerBehind, acknowledge, require_published
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.ledger_sql.tables import admin_log

pytestmark = pytest.mark.anyio


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    (tmp_path / "vendor").mkdir()
    vendor = Vendor(tmp_path / "vendor", free_port())
    yield vendor
    vendor.stop()


def test_a_lost_log_is_noticed(vendor: Vendor) -> None:
    """The ledger's name and keys are in its file before anything is sold, so it is found behind, not new."""
    vendor.start()
    bearer = {"Authorization": f"Bearer {vendor.create_key('acme', 10)}"}
    order = images(png("red"), keys=[item_key("red")])
    assert httpx.post(f"{vendor.url}/v1/embeddings/images", json=order, headers=bearer).status_code == 200
    heads = vendor.home / "vendor-published-heads.json"
    while not any(json.loads(heads.read_text())["ledgers"].values()):  # written within about a second
        time.sleep(0.05)
    vendor.kill()
    for end in ("wal", "shm"):
        (vendor.home / f"vendor.db-{end}").unlink()
    verified = vendor.command("ledger", "verify")
    assert (verified.code, "published_entry_lost" in verified.out) == (1, True), verified
    refused = vendor.command("keys", "create", "--account", "acme", "--budget", "10")
    assert (refused.code, "ledger acknowledge-restore" in refused.err) == (1, True), refused
    assert len(json.loads(heads.read_text())["ledgers"]) == 1


def test_no_command_that_looks_makes_a_ledger_in_a_file_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL2V_VENDOR_DATA_DIR", str(tmp_path))
    engine = open_engine(f"sqlite:///{tmp_path / 'vendor.db'}")
    engine.connect().close()
    engine.dispose()
    assert (tmp_path / "vendor.db").stat().st_size == 4096
    for words in (("accounts", "list"), ("ledger", "verify"), ("ledger", "acknowledge-restore")):
        with pytest.raises(NotFound, match=r"holds no ledger: vendor\.db-wal may be lost"):
            invoke(*words)


def test_a_ledger_that_the_published_heads_do_not_know_beside_others_is_refused_until_it_is_acknowledged(
    shop: Shop, tmp_path: Path
) -> None:
    file = HeadsFile(tmp_path / "vendor-published-heads.json", "ledger_new")
    HeadsFile(file.path, "ledger_idle").merge({})
    require_published(shop.engine, file)  # who signed nothing has lost nothing
    HeadsFile(file.path, "ledger_old").merge({"acct_a": PublishedHead(5, "5" * 64)})
    with pytest.raises(LedgerBehind, match=r"ledger_new, .*another ledger: ledger_old\. .*acknowledge-restore"):
        require_published(shop.engine, file)
    for _ in range(2):
        assert acknowledge(shop.accounts, file, "disk failed") == []
        require_published(shop.engine, file)
    with shop.engine.connect() as connection:
        logged = connection.execute(select(admin_log).where(admin_log.c.act == "acknowledge_restore")).one()
    assert json.loads(logged.parameters) == {"ledger_id": "ledger_new", "beside": ["ledger_old"]}
    assert json.loads(logged.outcome) == {"note": "disk failed"}
    assert problems_of(shop.engine) == []


def test_the_commands_name_the_other_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL2V_VENDOR_DATA_DIR", str(tmp_path))
    file = HeadsFile(tmp_path / "vendor-published-heads.json", "ledger_old")
    file.merge({"acct_a": PublishedHead(5, "5" * 64)})
    for words in (("accounts", "create", "acme"), ("prices", "set", "tiny", "image", "5")):
        with pytest.raises(LedgerBehind, match="another ledger: ledger_old"):
            invoke(*words)
    found = invoke("ledger", "verify")
    assert (found.exit_code, "another_ledger" in found.stdout) == (1, True), found.output
    assert "is a new ledger beside ledger_old" in invoke("ledger", "acknowledge-restore").stdout
    assert "nothing to acknowledge" in invoke("ledger", "acknowledge-restore").stdout
    assert invoke("ledger", "verify").exit_code == 0
    assert invoke("accounts", "create", "acme").exit_code == 0


@pytest.mark.parametrize("end", ["", "-wal"])
async def test_readiness_notices_that_a_file_is_not_the_one_at_its_path(sqlite_url: str, end: str) -> None:
    engine = open_engine(sqlite_url)
    file = Path(f"{engine.url.database}{end}")
    ledger = SqlLedger(engine, signer=fixed_signer(), clock=FakeClock(), retention_seconds=RETENTION_SECONDS)
    await ledger.start()
    await ledger.ping()
    os.rename(file, aside := file.with_name("aside"))
    with pytest.raises(LedgerUnavailable, match="not the file that this server writes"):
        await ledger.ping()
    file.write_bytes(b"")
    with pytest.raises(LedgerUnavailable, match="not the file that this server writes"):
        await ledger.ping()
    os.rename(aside, file)
    await ledger.ping()
    await ledger.close()
    engine.dispose()


async def test_a_new_ledger_and_its_keys_are_in_its_file_before_anything_is_sold(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'vendor.db'}")
    upgrade(engine)
    without_log = [shutil.copy(tmp_path / "vendor.db", tmp_path / "migrated.db")]
    ledger = SqlLedger(engine, signer=fixed_signer(), clock=FakeClock(), retention_seconds=RETENTION_SECONDS)
    await ledger.start()
    without_log.append(shutil.copy(tmp_path / "vendor.db", tmp_path / "started.db"))
    await ledger.close()
    engine.dispose()
    rows = []
    for file in without_log:
        copy = open_engine(f"sqlite:///{file}")
        with copy.connect() as connection:
            for table in ("vendor", "signing_keys"):
                rows.append(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
        copy.dispose()
    assert rows == [1, 0, 1, 1]
