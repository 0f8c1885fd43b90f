"""The staff's API: every act done once under its name, logged with whose key did it, and open to that scope alone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import text

from support.vendor.admin_desk import ADMIN, open_desk
from vl2v_contract.records import Receipt, Statement, Summary
from vl2v_contract.wire.admin import Account, AdminLog, IssuedKey, KeyList, PriceVersion
from vl2v_contract.wire.errors import Problem
from vl2v_vendor.domain.accounts import secret_sha256
from vl2v_vendor.ledger_sql import sql_accounts
from vl2v_vendor.ledger_sql.database import open_engine, writing

pytestmark = pytest.mark.anyio

REPLAYED = "idempotent-replayed"


def problem(response: Any) -> tuple[int, str]:
    found = Problem.model_validate_json(response.content)
    assert found.status == response.status_code
    return found.status, found.code.value


async def test_an_account_is_opened_in_the_currency_that_things_are_sold_in(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        for modality in ("image", "text"):
            price = {"model_id": "hash-64", "modality": modality, "unit_price_micro": 7, "currency": "USD"}
            assert (await desk.post("/prices", price)).status_code == 201
        made = await desk.post("/accounts", {"name": "acme", "budget_units": 3})
        assert Account.model_validate_json(made.content).currency == "USD"
        assert (await desk.buy(await desk.issue("acme", "embed"), "a")).status_code == 200


async def test_from_a_new_account_to_its_bill(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        made = await desk.post("/accounts", {"name": "acme", "budget_units": 3})
        account = Account.model_validate_json(made.content)
        assert (made.status_code, account.name, account.currency, account.remaining_units) == (201, "acme", "EUR", 3)
        buyer = await desk.issue("acme", "embed", "billing", limit_units=2, name="training")
        assert (await desk.buy(buyer, "a", "b")).status_code == 200
        assert problem(await desk.buy(buyer, "c")) == (402, "budget_exhausted")
        keys = KeyList.model_validate(await desk.get(f"/accounts/{account.id}/keys"))
        assert [(key.name, key.limit_units, key.remaining_units) for key in keys.data] == [("training", 2, 0)]

        raised = await desk.post("/accounts/acme/topups", {"units": 5, "note": "invoice 7"})
        given = await desk.post("/accounts/acme/refunds", {"seq": 2, "units": 1, "note": "blurred"})
        top_up, refund = (
            TypeAdapter(Receipt).validate_json(raised.content),
            TypeAdapter(Receipt).validate_json(given.content),
        )
        assert (raised.status_code, top_up.entry.kind, top_up.entry.limit_units) == (201, "topup", 8)
        assert (given.status_code, refund.entry.kind, refund.entry.used_units) == (201, "refund", 1)

        statement = await desk.get("/accounts/acme/statement?after_seq=1&limit=10")
        summary = await desk.get(f"/accounts/{account.id}/summary")
        async with desk.client(buyer) as client:
            own = (await client.get("/v1/billing/statement?after_seq=1&limit=10")).json()
            own_summary = (await client.get("/v1/billing/summary")).json()
        assert statement["entries"] == own["entries"]
        assert [entry.entry.seq for entry in TypeAdapter(Statement).validate_python(statement).entries] == [2, 3, 4]
        assert TypeAdapter(Statement).validate_python(statement).entries[1].entry == top_up.entry
        assert summary == own_summary | {"api_key_id": desk.admin_key_id}
        assert TypeAdapter(Summary).validate_python(summary).total.units == 1
        assert {one["name"] for one in (await desk.get("/accounts"))["data"]} == {"acme", "staff"}
        assert (await desk.get("/accounts/acme"))["remaining_units"] == 7


ACTS = [
    ("/accounts", {"name": "new", "budget_units": 3}, {"name": "new", "budget_units": 4}),
    ("/accounts/acme/topups", {"units": 5, "note": "x"}, {"units": 6, "note": "x"}),
    ("/accounts/acme/refunds", {"seq": 2, "units": 1, "note": "x"}, {"seq": 2, "units": 1, "note": "y"}),
    ("/prices", {"model_id": "m", "modality": "text", "unit_price_micro": 7, "currency": "EUR"},
     {"model_id": "m", "modality": "text", "unit_price_micro": 8, "currency": "EUR"}),
]  # fmt: skip


async def test_an_act_under_one_name_is_done_once_and_answered_alike(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        await desk.post("/accounts", {"name": "acme", "budget_units": 3})
        await desk.buy(await desk.issue("acme", "embed"), "a", "b")
        for number, (path, body, other) in enumerate(ACTS):
            first = await desk.post(path, body, key=f"act {number}")
            for account in ("acme", "new"):
                assert (await desk.post(f"/accounts/{account}/topups", {"units": 1})).status_code == 201
            before = desk.rows("SELECT count(*) FROM admin_log"), desk.rows("SELECT * FROM budgets ORDER BY id")
            again = await desk.post(path, body, key=f"act {number}")
            assert (first.status_code, again.status_code, REPLAYED in first.headers) == (201, 201, False)
            assert again.headers[REPLAYED] == "true"
            assert again.content == first.content
            assert problem(await desk.post(path, other, key=f"act {number}")) == (422, "invalid_request")
            assert problem(await desk.post("/keys/none/revocation", key=f"act {number}")) == (404, "not_found")
            after = desk.rows("SELECT count(*) FROM admin_log"), desk.rows("SELECT * FROM budgets ORDER BY id")
            assert after == before


async def test_without_a_name_each_request_is_a_new_act(sqlite_url: str, tmp_path: Path) -> None:
    async with open_desk(sqlite_url, tmp_path) as desk:
        for _ in range(2):
            assert (await desk.post("/accounts/staff/topups", {"units": 5})).status_code == 201
        assert (await desk.get("/accounts/staff"))["limit_units"] == 10
        for bad in ("", "x" * 256):
            assert problem(await desk.post("/accounts/staff/topups", {"units": 5}, key=bad)) == (422, "invalid_request")


async def test_two_administrators_may_choose_the_same_name(sqlite_url: str, tmp_path: Path) -> None:
    async with open_desk(sqlite_url, tmp_path) as desk:
        colleague = await desk.issue("staff", "admin")
        for secret in (desk.secret, colleague):
            answer = await desk.post("/accounts/staff/topups", {"units": 5}, key="monday", secret=secret)
            assert (answer.status_code, REPLAYED in answer.headers) == (201, False)
        assert (await desk.get("/accounts/staff"))["limit_units"] == 10


async def test_the_same_act_many_times_at_once_is_done_once(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        answers = await asyncio.gather(
            *(desk.post("/accounts/staff/topups", {"units": 5}, key="monday") for _ in range(6))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert sum(REPLAYED in answer.headers for answer in answers) == 5
        assert (await desk.get("/accounts/staff"))["limit_units"] == 5


async def test_a_secret_is_shown_once(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        terms = {"scopes": ["embed"], "expires_days": 1.5}
        first = await desk.post("/accounts/staff/keys", terms, key="k")
        again = await desk.post("/accounts/staff/keys", terms, key="k")
        made, repeated = IssuedKey.model_validate_json(first.content), IssuedKey.model_validate_json(again.content)
        assert made.secret is not None
        assert made.key.expires_at == made.key.created_at + 129_600_000_000
        assert (first.headers["cache-control"], REPLAYED in first.headers) == ("no-store", False)
        assert (repeated.secret, repeated.key, again.headers[REPLAYED]) == (None, made.key, "true")
        assert "revoke" in repeated.notice
        assert len((await desk.get("/accounts/staff/keys"))["data"]) == 2
        # The same name for a key of another account is another act.
        await desk.post("/accounts", {"name": "acme", "budget_units": 1})
        assert problem(await desk.post("/accounts/acme/keys", terms, key="k")) == (422, "invalid_request")


async def test_revocation_works_on_the_next_request_and_so_does_expiry(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        await desk.post("/accounts/staff/topups", {"units": 9})
        buyer, brief = await desk.issue("staff", "embed"), await desk.issue("staff", "embed", expires_days=1)
        assert [(await desk.buy(secret, "a")).status_code for secret in (buyer, brief)] == [200, 200]
        first = await desk.post(f"/keys/{buyer[:13]}/revocation", key="leak")
        assert problem(await desk.buy(buyer, "b")) == (401, "key_revoked")
        again = await desk.post(f"/keys/{first.json()['id']}/revocation", key="leak")
        assert (first.status_code, again.content, again.headers[REPLAYED]) == (200, first.content, "true")
        with writing(desk.engine).begin() as connection:
            connection.execute(text("UPDATE api_keys SET expires_at = created_at WHERE expires_at > created_at"))
        assert problem(await desk.buy(brief, "b")) == (401, "key_expired")
        # A key may revoke itself.
        assert (await desk.post(f"/keys/{desk.admin_key_id}/revocation")).status_code == 200
        assert problem(await desk.post("/accounts/staff/topups", {"units": 1})) == (401, "key_revoked")


async def test_a_key_can_do_what_its_scopes_say_and_no_more(sqlite_url: str, tmp_path: Path) -> None:
    async with open_desk(sqlite_url, tmp_path) as desk:
        await desk.post("/accounts/staff/topups", {"units": 9})
        customer = await desk.issue("staff", "embed", "billing")
        assert problem(await desk.buy(desk.secret, "a")) == (403, "forbidden")
        async with desk.client(customer) as client, desk.client("vl2v_nobody") as stranger:
            document = (await client.get("/openapi.json")).json()
            asked = 0
            for path, methods in document["paths"].items():
                for method in methods if path.startswith(ADMIN) else ():
                    assert problem(await client.request(method, path)) == (403, "forbidden"), path
                    assert problem(await stranger.request(method, path)) == (401, "unauthenticated"), path
                    asked += 1
        assert asked == 13
        assert (await desk.get("/accounts/staff"))["limit_units"] == 9


MALFORMED: list[tuple[str, object]] = [
    ("/accounts", {"name": "acme"}),
    ("/accounts", {"name": "acme", "budget_units": "5"}),
    ("/accounts", {"name": "acme", "budget_units": True}),
    ("/accounts", {"name": "acme", "budget_units": 5, "note": "unknown field"}),
    ("/accounts", {"name": " acme", "budget_units": 5}),
    ("/accounts", {"name": "staff", "budget_units": 5}),
    ("/accounts", {"name": "acme", "budget_units": 2**53}),
    ("/accounts/staff/topups", {"units": 0}),
    ("/accounts/staff/topups", {"units": 1, "note": "a\u0000b"}),
    ("/accounts/staff/topups", {"units": 1, "note": "x" * 1001}),
    ("/accounts/staff/refunds", {"seq": 1, "units": 1, "note": ""}),
    ("/accounts/staff/keys", {"scopes": []}),
    ("/accounts/staff/keys", {"scopes": ["bake"]}),
    ("/accounts/staff/keys", {"scopes": ["embed"], "expires_days": 0}),
    ("/accounts/staff/keys", {"scopes": ["embed"], "limit_units": -1}),
    ("/accounts/staff/keys", {"scopes": ["embed"], "name": "a\nb"}),
    ("/prices", {"model_id": "m\u0000", "modality": "image", "unit_price_micro": 1, "currency": "EUR"}),
    ("/prices", {"model_id": "m", "modality": "image", "unit_price_micro": 10**12 + 1, "currency": "EUR"}),
    ("/prices", {"model_id": "m", "modality": "sound", "unit_price_micro": 1, "currency": "EUR"}),
    ("/prices", {"model_id": "m", "modality": "image", "unit_price_micro": 1.5, "currency": "EUR"}),
]


async def test_a_malformed_act_is_refused_and_not_logged(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        before = desk.rows("SELECT count(*) FROM admin_log")
        for path, body in MALFORMED:
            assert problem(await desk.post(path, body)) == (422, "invalid_request"), body
        assert desk.rows("SELECT count(*) FROM admin_log") == before


async def test_unknown_things_are_404_and_a_slash_in_a_name_calls_for_the_id(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_accounts, "check_account_name", lambda _: None)  # as in older versions
    async with open_desk(database_url, tmp_path) as desk:
        made = (await desk.post("/accounts", {"name": "acme/eu west", "budget_units": 1})).json()
        spaced = (await desk.post("/accounts", {"name": "acme #1?", "budget_units": 1})).json()
        assert await desk.get(f"/accounts/{made['id']}") == made
        assert await desk.get("/accounts/acme%20%231%3F") == spaced
        # A name that is another account's id does not hide that account.
        await desk.post("/accounts", {"name": made["id"], "budget_units": 7})
        assert (await desk.get(f"/accounts/{made['id']}"))["name"] == "acme/eu west"
        async with desk.client() as client:
            for path in ("nobody", "nobody/keys", "nobody/summary", "nobody/statement", "acme%2Feu%20west", "%00"):
                assert problem(await client.get(f"{ADMIN}/accounts/{path}")) == (404, "not_found")
        for path, body in (
            ("/accounts/nobody/topups", {"units": 1}),
            ("/accounts/nobody/keys", {"scopes": ["embed"]}),
            ("/accounts/staff/refunds", {"seq": 9, "units": 1, "note": "x"}),
            ("/keys/nobody/revocation", None),
            ("/keys/%00/revocation", None),
        ):
            assert problem(await desk.post(path, body)) == (404, "not_found")


async def test_the_log_says_who_did_what_and_holds_no_secret(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_desk(database_url, tmp_path) as desk:
        await desk.post("/accounts", {"name": "acme", "budget_units": 3}, key="open")
        secret = await desk.issue("acme", "admin")
        price = {"model_id": "m", "modality": "image", "unit_price_micro": 7, "currency": "EUR"}
        PriceVersion.model_validate_json((await desk.post("/prices", price, secret=secret)).content)
        # Whoever puts a whole secret into the path must not find it in the log.
        assert (await desk.post(f"/keys/{secret}/revocation")).status_code == 200
        pages = [AdminLog.model_validate(await desk.get("/log?limit=2"))]
        while pages[-1].next_after_id is not None:
            after_id = pages[-1].next_after_id
            pages.append(AdminLog.model_validate(await desk.get(f"/log?limit=2&after_id={after_id}")))
        acts = [act for page in pages for act in page.data]
        admin, colleague = desk.admin_key_id, secret[:13]
        key_ids = {key["prefix"]: key["id"] for key in (await desk.get("/accounts/acme/keys"))["data"]}
        assert [(act.act, act.actor) for act in acts] == [
            ("create_account", "cli:tester"),
            ("create_key", "cli:tester"),
            ("ensure_prices", "server"),
            ("create_account", admin),
            ("create_key", admin),
            ("set_price", key_ids[colleague]),
            ("revoke_key", admin),
        ]
        assert acts[3].parameters == {"name": "acme", "budget_units": 3, "currency": "EUR"}
        # httpx plays the client here, and logs the paths that it sends.
        logged = str([record.__dict__ for record in caplog.records if record.name != "httpx"])
        logged += str(desk.rows("SELECT * FROM admin_log")) + "".join(page.model_dump_json() for page in pages)
        for hidden in (secret, secret_sha256(secret), desk.secret, secret_sha256(desk.secret)):
            assert hidden not in logged
        assert colleague in logged


async def test_while_the_ledger_cannot_be_written_an_act_is_refused_in_time(sqlite_url: str, tmp_path: Path) -> None:
    async with open_desk(sqlite_url, tmp_path) as desk:
        blocker = open_engine(sqlite_url)
        loop = asyncio.get_running_loop()
        with writing(blocker).begin() as connection:
            connection.execute(text("SELECT 1"))
            started = loop.time()
            unnamed = await desk.post("/accounts/staff/topups", {"units": 5})
            named = await desk.post("/accounts/staff/topups", {"units": 5}, key="monday")
            assert loop.time() - started < 4
        blocker.dispose()
        assert problem(unnamed) == problem(named) == (503, "ledger_unavailable")
        # Only an act that has a name may be sent again without a thought.
        assert (unnamed.json()["retryable"], named.json()["retryable"]) == (False, True)
        assert "retry-after" in named.headers
        assert (await desk.post("/accounts/staff/topups", {"units": 5}, key="monday")).status_code == 201
        assert (await desk.get("/accounts/staff"))["limit_units"] == 5
