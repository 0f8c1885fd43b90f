"""What was signed is remembered beside the secrets, and a ledger that lacks it is not served."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, select

from support.ledger.ledger_shop import Shop, problems_of
from vl2v_contract.chain import RESTORE_MARGIN, follows
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.keys.published_heads import (
    HeadsFile,
    HeadsFileError,
    HeadsRecorder,
    PublishedHead,
)
from vl2v_vendor.ledger_sql.restoration import (
    Acknowledgement,
    LedgerBehind,
    acknowledge,
    find_lost,
    require_published,
)
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.ledger_sql.tables import admin_log
from vl2v_vendor.service.audit import Audit, sign_receipt

pytestmark = pytest.mark.anyio

LOST = "f" * 64


@pytest.fixture
def file(tmp_path: Path) -> HeadsFile:
    return HeadsFile(tmp_path / "vendor-published-heads.json", "ledger_1")


def entries(shop: Shop) -> list[StatementEntry]:
    async def story(ledger: SqlLedger) -> list[StatementEntry]:
        return await ledger.entries(shop.account.id, after_seq=0, limit=100)

    return shop.run(story)


def acknowledged(shop: Shop, file: HeadsFile, note: str | None = None) -> list[Acknowledgement]:
    return acknowledge(SqlAccounts(shop.engine, signer=shop.signer, clock=shop.clock, actor="test"), file, note)


def assert_clean(shop: Shop) -> None:
    assert problems_of(shop.engine) == []


def test_the_file_only_moves_forward_and_keeps_ledgers_apart(file: HeadsFile) -> None:
    assert file.read() == {}
    file.merge({"acct_a": PublishedHead(5, "5" * 64), "acct_b": PublishedHead(1, "1" * 64)})
    file.merge({"acct_a": PublishedHead(4, "4" * 64), "acct_b": PublishedHead(2, "2" * 64)})
    other = HeadsFile(file.path, "ledger_2")
    other.merge({"acct_a": PublishedHead(9, "9" * 64)})
    assert file.read() == {"acct_a": PublishedHead(5, "5" * 64), "acct_b": PublishedHead(2, "2" * 64)}
    file.forget(["acct_a", "acct_unknown"])
    assert list(file.read()) == ["acct_b"]
    assert other.read() == {"acct_a": PublishedHead(9, "9" * 64)}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ledgers": {"ledger_1": {"acct_a": [1]}}}'])
def test_a_damaged_file_is_refused_with_the_remedy(file: HeadsFile, content: str) -> None:
    file.path.write_text(content)
    with pytest.raises(HeadsFileError, match="restore it from a backup"):
        file.read()


async def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    recorder = HeadsRecorder(HeadsFile(tmp_path / "missing" / "heads.json", "ledger_1"))
    with pytest.raises(HeadsFileError, match="make its folder writable"):
        await recorder.start()


async def test_receipts_and_statement_heads_are_noted_when_they_are_signed(shop: Shop, file: HeadsFile) -> None:
    async with shop.open_ledger() as ledger:
        recorder = HeadsRecorder(file)
        await recorder.start()
        signer = shop.signer
        signer.on_signed = recorder.note
        found = []
        charge = await ledger.charge(shop.order("a"))
        assert charge.posted is not None
        sign_receipt(signer, charge.posted)
        while not file.read():  # written in the background, within about a second
            await asyncio.sleep(0.05)
        found.append(file.read()[shop.account.id])
        await ledger.charge(shop.order("b"))
        await Audit(ledger, signer, shop.clock).statement(shop.account.id)
        await recorder.close()
        found.append(file.read()[shop.account.id])
        charges = await ledger.entries(shop.account.id, after_seq=1, limit=100)
    assert found == [PublishedHead(posted.entry.seq, posted.entry_hash) for posted in charges]
    require_published(shop.engine, file)


async def test_nothing_is_sold_or_signed_where_the_ledger_went_back_under_the_server(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order("a"))
        assert charge.posted is not None
        newest = replace(charge.posted.entry, seq=charge.posted.entry.seq + 2)  # in the database that is gone
        shop.signer.sign_receipt(newest, charge.posted.entry_hash)
        sign_receipt(shop.signer, charge.posted)  # an older one again
        for act in (ledger.charge(shop.order("b")), ledger.head(shop.account.id)):
            with pytest.raises(LedgerUnavailable, match=r"entry 4 of .* was signed here, and .* ends at 2"):
                await act


async def test_a_sale_while_the_head_is_read_is_no_ledger_that_went_back(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order("a"))
        assert charge.posted is not None
        entry, entry_hash = charge.posted.entry, charge.posted.entry_hash

        def sell_meanwhile(*_cursor: object) -> None:
            shop.signer.sign_receipt(replace(entry, seq=entry.seq + 1), entry_hash)

        event.listen(shop.engine, "after_cursor_execute", sell_meanwhile)
        assert (await ledger.head(shop.account.id)).seq == entry.seq


async def test_a_write_that_fails_is_tried_again(file: HeadsFile, caplog: pytest.LogCaptureFixture) -> None:
    recorder = HeadsRecorder(file)
    recorder.note("acct_a", 7, LOST)
    file.path.write_text("damaged")
    await recorder.close()
    file.path.unlink()
    await recorder.close()
    assert "trying again" in caplog.text
    assert file.read() == {"acct_a": PublishedHead(7, LOST)}


def test_a_ledger_behind_a_published_head_is_refused_until_a_restored_entry_says_so(
    shop: Shop, file: HeadsFile
) -> None:
    shop.charge(shop.order("a"))
    file.merge({shop.account.id: PublishedHead(5, LOST)})
    with pytest.raises(LedgerBehind, match=f"entry 5 of account {shop.account.id} .*entry 2 .*acknowledge-restore"):
        require_published(shop.engine, file)
    [act] = acknowledged(shop, file, "disk failed")
    require_published(shop.engine, file)
    shop.charge(shop.order("b"))
    restored, after = [posted.entry for posted in entries(shop)[2:]]
    assert (restored.kind, restored.ref_seq, restored.seq) == ("restored", 5, 5 + 1 + RESTORE_MARGIN)
    assert restored.note == f"lost head {LOST}; disk failed"
    assert (restored.units, restored.amount_micro, restored.used_units, restored.limit_units) == (0, 0, 1, 10)
    assert act.restored == PublishedHead(restored.seq, restored.hash()) == file.read()[shop.account.id]
    assert (after.seq, after.prev_hash, after.used_units) == (restored.seq + 1, restored.hash(), 2)
    assert_clean(shop)


def test_acknowledging_again_and_with_another_replicas_file_adds_nothing(shop: Shop, file: HeadsFile) -> None:
    file.merge({shop.account.id: PublishedHead(5, LOST)})
    acknowledged(shop, file)
    replica = HeadsFile(file.path.with_name("replica.json"), "ledger_1")
    for seq in (2, 5, 5 + RESTORE_MARGIN):
        replica.merge({shop.account.id: PublishedHead(seq, LOST)})
        assert find_lost(shop.engine, replica.read()) == []
        assert acknowledged(shop, replica) == acknowledged(shop, file) == []
    assert len(entries(shop)) == 2


def test_a_fork_is_acknowledged_beyond_both_branches(shop: Shop, file: HeadsFile) -> None:
    """Sold on after a restore without the file, and only then the file came back."""
    shop.charge(shop.order("a"))
    shop.charge(shop.order("b"))
    file.merge({shop.account.id: PublishedHead(2, LOST)})
    replica = HeadsFile(file.path.with_name("replica.json"), "ledger_1")
    replica.merge(file.read())
    acknowledged(shop, file)
    acknowledged(shop, replica)
    assert replica.read() == file.read()
    assert [posted.entry.seq for posted in entries(shop)] == [1, 2, 3, 3 + 1 + RESTORE_MARGIN]
    require_published(shop.engine, file)
    assert_clean(shop)


def test_an_account_that_is_gone_is_logged_and_forgotten(shop: Shop, file: HeadsFile) -> None:
    file.merge({"acct_gone": PublishedHead(5, LOST)})
    with pytest.raises(LedgerBehind, match=r"entry 5 of account acct_gone .*no such account"):
        require_published(shop.engine, file)
    [act] = acknowledged(shop, file)
    assert (act.lost.account_id, act.restored, file.read()) == ("acct_gone", None, {})
    with shop.engine.connect() as connection:
        logged = connection.execute(select(admin_log.c.parameters).where(admin_log.c.act == "acknowledge_restore"))
        assert "acct_gone" in logged.scalar_one()


def test_pages_of_a_statement_cross_the_gap(shop: Shop, file: HeadsFile) -> None:
    shop.charge(shop.order("a"))
    file.merge({shop.account.id: PublishedHead(5, LOST)})
    acknowledged(shop, file)
    shop.charge(shop.order("b"))

    async def story(ledger: SqlLedger) -> list[int]:
        audit = Audit(ledger, shop.signer, shop.clock)
        after_seq: int | None = 0
        seqs: list[int] = []
        while after_seq is not None:
            page = await audit.statement(shop.account.id, after_seq, limit=1)
            seqs += [posted.entry.seq for posted in page.entries]
            after_seq = page.next_after_seq
        return seqs

    assert shop.run(story) == [1, 2, 6 + RESTORE_MARGIN, 7 + RESTORE_MARGIN]


def test_only_a_restored_entry_explains_a_gap_and_only_one_of_the_right_size(shop: Shop, file: HeadsFile) -> None:
    file.merge({shop.account.id: PublishedHead(5, LOST)})
    acknowledged(shop, file)
    first, restored = [posted.entry for posted in entries(shop)]
    assert follows(0, first)
    assert not follows(1, first)
    assert all(follows(seq, restored) for seq in (1, 5))
    assert not follows(6, restored)
    for wrong in ({"seq": restored.seq + 1}, {"seq": 2}, {"ref_seq": 4}, {"ref_seq": None}, {"kind": "topup"}):
        assert not follows(1, replace(restored, **wrong)), wrong


def test_the_file_is_plain_json(file: HeadsFile) -> None:
    file.merge({"acct_a": PublishedHead(5, LOST)})
    assert json.loads(file.path.read_text()) == {"version": 1, "ledgers": {"ledger_1": {"acct_a": [5, LOST]}}}
