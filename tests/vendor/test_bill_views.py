"""The bill from any place in it: by number, day, request and item; and summed up from a day on, with few rows read."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from support.ledger.ledger_shop import Shop, item_key, open_shop
from vl2v_contract.chain import RESTORE_MARGIN
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.ledger_sql.account_rows import post_restored
from vl2v_vendor.ledger_sql.admin_acts import Act
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.service.bill_views import PAGE_ENTRIES, RECENT_DAYS, BillViews, StatementView

pytestmark = pytest.mark.anyio

DAY = 86_400_000_000


@pytest.fixture
def timed_shop(sqlite_url: str) -> Iterator[Shop]:
    """A shop whose ledger goes by a clock that the test sets: PostgreSQL has one of its own."""
    engine = open_engine(sqlite_url)
    yield open_shop(engine)
    engine.dispose()


def views_of(shop: Shop, ledger: SqlLedger) -> BillViews:
    return BillViews(ledger, shop.clock)


def seqs(view: StatementView) -> list[int]:
    return [entry.seq for entry in view.entries]


def restore(shop: Shop, lost_seq: int) -> int:
    """Post what follows the return to a backup; returns its number."""
    posted = shop.accounts.perform(
        Act("acknowledge_restore", {"seq": lost_seq}, shop.account.id),
        lambda act: {"seq": post_restored(act, shop.signer, shop.account.id, lost_seq, "lost").seq},
    )
    return int(posted["seq"])


async def test_pages_meet_without_a_gap_in_both_directions(shop: Shop) -> None:
    for number in range(PAGE_ENTRIES):
        shop.accounts.top_up(shop.account, 1, note=f"top-up {number}")
    last = restore(shop, PAGE_ENTRIES + 1)
    async with shop.open_ledger() as ledger:
        views, account_id = views_of(shop, ledger), shop.account.id
        first = await views.before(account_id, last + 1)
        assert (len(first.entries), seqs(first)[0], first.newer_than) == (PAGE_ENTRIES, last, None)
        assert last > PAGE_ENTRIES + RESTORE_MARGIN
        assert first.older_than is not None
        second = await views.before(account_id, first.older_than)
        assert (seqs(second), second.older_than) == ([2, 1], None)
        assert second.newer_than == 2
        assert seqs(await views.after(account_id, second.newer_than)) == seqs(first)
        assert seqs(await views.after(account_id, 1))[-1] == 2
        assert await views.before(account_id, 1) == await views.after(account_id, last) == StatementView(())


async def test_an_entry_is_found_by_number_request_and_item(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        views, account_id = views_of(shop, ledger), shop.account.id
        orders = [shop.order(name) for name in ("cat", "dog", "owl")]
        for order in orders:
            await ledger.charge(order)
        for words in ("3", " 3 ", orders[1].request_id, item_key("dog")):
            found = await views.find(account_id, words)
            assert (found.found_seq, seqs(found), found.newer_than) == (3, [3, 2, 1], 3), words
        for words in ("0", "99", "req_none", item_key("cow"), "1" * 17):
            assert await views.find(account_id, words) == StatementView(()), words
        for words in ("two words", "<b>", "x" * 65, "2026-02-30", "9999-12-31", "²"):
            with pytest.raises(InvalidRequest):
                await views.find(account_id, words)
        assert await views.find("acct_other", "req_none") == StatementView(())


async def test_a_day_leads_to_its_last_entry(timed_shop: Shop) -> None:
    shop, start = timed_shop, timed_shop.clock.now()  # 2026-01-01, when entry 1 was made
    async with shop.open_ledger() as ledger:
        views, account_id = views_of(shop, ledger), shop.account.id
        for day, names in ((1, "ab"), (1, "c"), (4, "d")):
            shop.clock.time = start + (day + 1) * DAY - 1
            await ledger.charge(shop.order(*names))
        last = restore(shop, 4)
        shop.clock.time = start + 9 * DAY
        shop.accounts.top_up(shop.account, 1)
        expected = {-1: 0, 0: 1, 1: 3, 2: 3, 4: last, 8: last, 9: last + 1, 700: last + 1}
        for day, seq in expected.items():
            assert await ledger.seq_at(account_id, start + (day + 1) * DAY - 1) == seq, day
        assert (await views.find(account_id, "2026-01-02")).found_seq == 3
        assert (await views.find(account_id, "2026-01-09")).found_seq == last
        assert (await views.find(account_id, "2025-12-31")).found_seq is None
        for moment in range(start - 1, start + 10 * DAY, DAY // 2):
            made = [one.entry.seq for one in await ledger.entries(account_id, after_seq=0, limit=99)
                    if one.entry.created_at <= moment]  # fmt: skip
            assert await ledger.seq_at(account_id, moment) == (made[-1] if made else 0)


async def test_the_last_days_are_summed_up_each_of_them(timed_shop: Shop) -> None:
    shop, start = timed_shop, timed_shop.clock.now()
    async with shop.open_ledger() as ledger:
        views, account_id = views_of(shop, ledger), shop.account.id
        await ledger.charge(shop.order("a", "b"))
        shop.clock.time = start + DAY
        await ledger.charge(shop.order("c"))
        shop.clock.time = start + RECENT_DAYS * DAY + 5
        await ledger.charge(shop.order("d", "e", "f"))
        shop.accounts.refund(shop.account, 4, 1, "blurred")
        recent = await views.recent(account_id)
        spent = {day.name: (day.units, day.amount_micro) for day in recent.days if day.units}
        assert spent == {"2026-01-02": (1, 100), "2026-01-31": (2, 200)}
        assert (len(recent.days), recent.days[0].name, recent.days[-1].name) == (30, "2026-01-02", "2026-01-31")
        assert (recent.totals.units, recent.totals.amount_micro, recent.totals.head.used_units) == (3, 300, 5)
        assert [(one.units, one.name) for one in recent.totals.by_key] == [(3, shop.key.id)]
        assert (await ledger.totals(account_id)).units == 5


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent while the block runs, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


async def test_no_view_reads_the_whole_ledger(timed_shop: Shop) -> None:
    shop = timed_shop
    async with shop.open_ledger() as ledger:
        views, account_id = views_of(shop, ledger), shop.account.id
        order = shop.order("cat")
        await ledger.charge(order)
        with statements(shop.engine) as seen:
            await views.recent(account_id)
            await views.before(account_id, 2)
            await views.after(account_id, 1)
            for words in ("2", "2026-01-01", order.request_id, item_key("cat")):
                await views.find(account_id, words)
    plans = set()
    with shop.engine.connect() as connection:
        for statement, parameters in seen:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans |= {row[-1] for row in rows if re.search(r"\b(ledger|charge_items)\b", row[-1])}
    assert len(plans) > 3
    bounds = r"seq[<>=]|request_id=|item_key="
    assert [plan for plan in plans if not re.match(r"SEARCH", plan) or not re.search(bounds, plan)] == []


@pytest.mark.parametrize("what", ["sums", "receipts", "statements"])
async def test_whoever_has_a_long_ledger_read_again_and_again_keeps_no_other_waiting(
    timed_shop: Shop, what: str
) -> None:
    shop, may_go_on = timed_shop, threading.Event()

    def hold(_connection: Any, _cursor: Any, _statement: str, parameters: Any, *_rest: Any) -> None:
        if shop.account.id in str(parameters):
            may_go_on.wait(10)

    def read() -> Coroutine[Any, Any, Any]:
        if what == "sums":
            return ledger.totals(shop.account.id)
        if what == "receipts":
            return ledger.find_entries(shop.account.id, [2])
        return ledger.signed_entries(shop.account.id, after_seq=0, limit=10)

    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("cat"))
        event.listen(shop.engine, "before_cursor_execute", hold)
        reads = [asyncio.create_task(read()) for _ in range(4)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            assert await ledger.find_entries("acct_other", [2]) == []
        assert not any(one.done() for one in reads)
        may_go_on.set()
        first, *others = await asyncio.gather(*reads)
        assert all(other == first for other in others)
