"""What the pages show of the bill, and the signed documents that they hand out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import TypeAdapter

from support.ledger.ledger_shop import item_key
from support.vendor.admin_desk import Desk, open_desk
from support.vendor.page_visitor import HOST, Page, Visitor
from vl2v_contract.chain import GENESIS_HASH, follows, items_hash
from vl2v_contract.records import PublicKeys, RequestRecord, Statement, head_message, receipt_message, verify
from vl2v_vendor.ledger_sql import sql_accounts

pytestmark = pytest.mark.anyio

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, tmp_path) as opened:
        await opened.post("/accounts", {"name": "acme", "budget_units": 1000})
        yield opened


async def all_pages(visitor: Visitor) -> list[Page]:
    paths = ("/", "/statement", "/statement?search=2", "/keys", "/docs", "/login", "/receipts/none")
    return [await visitor.get(path) for path in paths]


async def test_people_see_money_and_what_is_left(desk: Desk) -> None:
    secret = await desk.issue("acme", "embed", "billing", name="training")
    assert (await desk.buy(secret, "a", "b", "c")).status_code == 200
    await desk.post("/accounts/acme/refunds", {"seq": 2, "units": 1, "note": "blurred"})
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        bill, statement = (await visitor.get("/")).text, (await visitor.get("/statement")).text
    assert "Queries left 998 of 1,000; 2 used" in bill
    assert "Spent in 30 days 0.0002 EUR 2 queries" in bill
    assert "Price of an image 0.0001 EUR" in bill
    assert "training 2 0.0002 EUR" in bill
    assert "hash-64 2 0.0002 EUR" in bill
    assert f"vl2v-client audit --vendor-url http://{HOST}" in bill
    assert "3 images by hash-64 training 3 0.0003 EUR 997" in statement
    assert "Refund of entry 2 blurred training -1 -0.0001 EUR 998" in statement
    assert "Top-up of the budget first budget +1,000 1,000" in statement


async def test_a_spent_budget_is_said(desk: Desk) -> None:
    await desk.post("/accounts", {"name": "small", "budget_units": 1})
    secret = await desk.issue("small", "embed", "billing")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        assert "The budget is spent" not in (await visitor.get("/")).text
        await desk.buy(secret, "a")
        assert (await desk.buy(secret, "b")).status_code == 402
        assert "The budget is spent" in (await visitor.get("/")).text


async def test_an_account_without_any_entry_has_its_pages(desk: Desk) -> None:
    await desk.post("/accounts", {"name": "new", "budget_units": 0})
    secret = await desk.issue("new", "billing")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        bill, statement = await visitor.get("/"), await visitor.get("/statement")
        lines = (await visitor.http.get("/statement.jsonl")).text.splitlines()
    assert "The ledger has no entry yet" in bill.text
    assert "There are no entries here" in statement.text
    assert len(lines) == 1


async def test_what_others_named_is_shown_letter_by_letter(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_accounts, "check_account_name", lambda _: None)  # as in older versions
    await desk.post("/accounts", {"name": HOSTILE, "budget_units": 0})
    accounts = {one["name"]: one["id"] for one in (await desk.get("/accounts"))["data"]}
    secret = await desk.issue(accounts[HOSTILE], "embed", "billing", name=HOSTILE)
    await desk.post(f"/accounts/{accounts[HOSTILE]}/topups", {"units": 5, "note": HOSTILE})
    await desk.buy(secret, "a")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        found = [*await all_pages(visitor), await visitor.get(f"/statement?search={HOSTILE}")]
        keys = await visitor.get("/keys")
        again = keys.form("/keys").fields | {"name": HOSTILE, "limit_units": HOSTILE, "expires_days": HOSTILE}
        found.append(await visitor.post("/keys", again))
    for page in found:
        assert not [tag for tag, _ in page.tags if tag in ("script", "img")], page.answer.url
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for page in (found[0], found[1], keys, *found[-2:]):
        assert HOSTILE in page.text or f'value="{HOSTILE}' in page.answer.text or HOSTILE in str(page.tags)


async def test_no_page_needs_a_script_a_style_of_its_own_or_another_host(desk: Desk) -> None:
    secret = await desk.issue("acme", "embed", "billing")
    await desk.buy(secret, "a")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        for page in await all_pages(visitor):
            assert not [tag for tag, _ in page.tags if tag in ("script", "style", "iframe", "object", "base")]
            assert not [attributes for _, attributes in page.tags if "style" in attributes]
            assert [one for one in page.addresses if not one.startswith(("/", "#")) or one.startswith("//")] == []
            assert page.answer.headers.get_list("content-security-policy")[0].startswith("default-src 'none'; ")
            assert page.answer.headers["cache-control"] == "no-store"
        for path in ("/style.css", "/icon.svg"):
            assert "http" not in (await visitor.http.get(path)).text.replace("http://www.w3.org/2000/svg", "")


async def test_links_lead_through_the_whole_statement(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    for number in range(104):
        desk.accounts.top_up(desk.accounts.find_account("acme"), 1, note=f"number {number}")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        page, seen = await visitor.get("/statement"), list[int]()
        while True:
            seen += [int(word) for word in page.words if word.isdigit()]  # all other numbers have signs or commas
            if "Older" not in page.links:
                break
            page = await visitor.get(page.links["Older"])
        assert {"Newer", "Newest"} <= page.links.keys()
        newer = await visitor.get(page.links["Newer"])
        found = await visitor.get("/statement?search=7")
        lost = await visitor.get("/statement?search=700")
    assert seen == list(range(105, 0, -1))
    assert "number 103" not in newer.text
    assert "number 5" in found.text
    assert '<tr class="found">' in found.answer.text
    assert "No entry was found for “700”" in lost.text


async def test_a_receipt_is_the_api_s_own_and_verifies_offline(desk: Desk) -> None:
    secret = await desk.issue("acme", "embed", "billing")
    await desk.buy(secret, "a", "b")
    async with Visitor(desk.app) as visitor, desk.client(secret) as client:
        await visitor.log_in(secret)
        page = await visitor.get(f"/statement?search={item_key('a')}")
        answer = await visitor.http.get(page.links["Receipt"])
        request_id = page.links["Receipt"].removeprefix("/receipts/")
        own = await client.get(f"/v1/billing/requests/{request_id}")
        keys = TypeAdapter(PublicKeys).validate_json((await client.get("/v1/billing/keys")).content)
    assert answer.content == own.content
    assert answer.headers["content-disposition"] == 'attachment; filename="receipt-2.json"'
    record = TypeAdapter(RequestRecord).validate_json(answer.content)
    receipt, (key,) = record.receipt, keys.keys
    assert [item.item_key for item in record.items] == [item_key("a"), item_key("b")]
    assert receipt.entry.items_hash == items_hash(record.items)
    assert receipt.entry.hash() == receipt.entry_hash
    assert verify(key.public_key, receipt_message(receipt.entry_hash), receipt.signature)


async def test_a_receipt_is_found_whatever_the_staff_named_its_act(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    for name in ("2026/11", "50 % more?", "a#b&c", "é"):
        desk.accounts.top_up(desk.accounts.find_account("acme"), 1, request_id=name)
        async with Visitor(desk.app) as visitor, desk.client(secret) as client:
            await visitor.log_in(secret)
            answer = await visitor.http.get((await visitor.get("/statement")).links["Receipt"])
            own = await client.get(f"/v1/billing/requests/{quote(name, safe='')}")
        assert answer.content == own.content
        assert TypeAdapter(RequestRecord).validate_json(answer.content).receipt.entry.request_id == name


async def test_the_statement_is_handed_out_whole_and_verifies_offline(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(desk.app.state.services.audit).statement, "__defaults__", (0, 2))  # a page is of 2 entries
    secret = await desk.issue("acme", "embed", "billing")
    for name in "abcd":
        await desk.buy(secret, name)
    async with Visitor(desk.app) as visitor, desk.client(secret) as client:
        await visitor.log_in(secret)
        answer = await visitor.http.get("/statement.jsonl")
        (key,) = TypeAdapter(PublicKeys).validate_json((await client.get("/v1/billing/keys")).content).keys
    pages = [TypeAdapter(Statement).validate_json(line) for line in answer.text.splitlines()]
    assert len(pages) == 3
    seq, end = 0, GENESIS_HASH
    for posted in (posted for page in pages for posted in page.entries):
        assert follows(seq, posted.entry)
        assert (posted.entry.prev_hash, posted.entry.hash()) == (end, posted.entry_hash)
        seq, end = posted.entry.seq, posted.entry_hash
    signed = pages[-1].signed_head
    assert (seq, signed.head.entry_hash) == (5, end)
    assert verify(key.public_key, head_message(asdict(signed.head)), signed.signature)


async def test_another_account_s_entries_are_not_shown(desk: Desk) -> None:
    buyer = await desk.issue("acme", "embed", "billing")
    request_id = (await desk.buy(buyer, "a")).json()["request_id"]
    await desk.post("/accounts", {"name": "globex", "budget_units": 1})
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("globex", "billing"))
        assert (await visitor.get(f"/receipts/{request_id}")).status == 404
        for words in (request_id, item_key("a"), "2"):
            assert "No entry was found" in (await visitor.get(f"/statement?search={words}")).text
        assert "acme" not in "".join(page.answer.text for page in await all_pages(visitor))
        assert "acme" not in (await visitor.http.get("/statement.jsonl")).text


async def test_the_command_names_no_address_that_is_none(desk: Desk) -> None:
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("acme", "billing"))
        cookie = f"vl2v-session={visitor.http.cookies['vl2v-session']}"
        for host in ("evil.example/<b>", "a b", "evil.example:99999999", '"x"'):
            page = Page(await visitor.http.get("/", headers={"Host": host, "Cookie": cookie}))
            assert "vl2v-client audit --vendor-url https://..." in page.text
