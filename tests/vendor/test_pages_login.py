"""Who gets into the pages, how long, and what a form of another site can do."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from support.ledger.ledger_shop import FakeClock
from support.vendor.admin_desk import Desk, open_desk
from support.vendor.page_visitor import Page, Visitor
from support.vendor.serving_shop import PEPPER
from vl2v_vendor.domain.accounts import secret_sha256
from vl2v_vendor.web.app import PAGES
from vl2v_vendor.web.declarations import public
from vl2v_vendor.web.pages.sessions import SESSION_SECONDS, Sessions, require_session

pytestmark = pytest.mark.anyio

PUBLIC_PAGES = {"/login", "/docs", "/openapi.json", "/style.css", "/icon.svg"}


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, tmp_path) as opened:
        await opened.post("/accounts", {"name": "acme", "budget_units": 100})
        yield opened


def pages() -> list[APIRoute]:
    return [route for router in PAGES for route in router.routes if isinstance(route, APIRoute)]


def calls_of(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls_of(dependency)


def is_sent_to_login(page: Page, *, ended: bool = False) -> bool:
    return (page.status, page.answer.headers.get("location")) == (303, "/login?ended" if ended else "/login")


def test_every_page_declares_who_may_see_it() -> None:
    assert len(pages()) > 10
    for route in pages():
        policies = {call for call in calls_of(route.dependant) if call in (public, require_session)}
        assert policies == {public if route.path in PUBLIC_PAGES else require_session}, route.path


async def test_without_a_session_a_page_sends_to_the_login(desk: Desk) -> None:
    async with Visitor(desk.app) as visitor:
        for route in pages():
            if route.path in PUBLIC_PAGES:
                continue
            for method in route.methods:
                page = Page(await visitor.http.request(method, route.path.replace("{", "").replace("}", "")))
                assert is_sent_to_login(page), route.path
                assert not page.answer.headers.get_list("set-cookie")


async def test_whoever_logs_in_gets_a_cookie_that_says_nothing(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    async with Visitor(desk.app) as visitor:
        answer = await visitor.log_in(secret)
        assert (answer.status, answer.answer.headers["location"]) == (303, "/")
        (cookie,) = answer.answer.headers.get_list("set-cookie")
        assert re.fullmatch(r"vl2v-session=[\w-]+; HttpOnly; Max-Age=3600; Path=/; SameSite=strict", cookie), cookie
        assert secret not in cookie
        assert secret_sha256(secret) not in cookie
        page = await visitor.get("/")
        assert page.status == 200
        assert "Bill of acme" in page.text
        assert (await visitor.get("/login")).status == 200


async def test_over_https_the_cookies_are_for_https_and_this_host_alone(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    async with Visitor(desk.app, "https") as visitor:
        for page in (await visitor.get("/login"), await visitor.log_in(secret)):
            (cookie,) = page.answer.headers.get_list("set-cookie")
            assert cookie.startswith("__Host-vl2v-")
            assert cookie.endswith("; Secure")
        assert (await visitor.get("/")).status == 200


async def test_a_key_that_may_not_read_the_bill_logs_nobody_in(desk: Desk) -> None:
    good = await desk.issue("acme", "billing")
    revoked = await desk.issue("acme", "billing")
    await desk.post(f"/keys/{revoked[:13]}/revocation")
    refused = {
        "": (401, "knows no such API key"),
        f"{good}x": (401, "knows no such API key"),
        revoked: (401, "is revoked"),
        await desk.issue("acme", "embed"): (403, "lacks the scope"),
        desk.secret: (403, "lacks the scope"),
    }
    for secret, (status, words) in refused.items():
        async with Visitor(desk.app) as visitor, desk.client(secret or "none") as client:
            page = await visitor.log_in(secret)
            assert (page.status, words in page.text) == (status, True)
            assert not secret or secret not in page.answer.text
            assert not any(name.endswith("session") for name in visitor.http.cookies)
            assert (await client.get("/v1/billing/summary")).status_code == status
            assert is_sent_to_login(await visitor.get("/"))


async def test_a_session_ends_with_its_key(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        assert (await visitor.get("/statement")).status == 200
        await desk.post(f"/keys/{secret[:13]}/revocation")
        assert is_sent_to_login(await visitor.get("/statement"), ended=True)
        assert "Your session has ended" in (await visitor.get("/login?ended")).text
        assert not any(name.endswith("session") for name in visitor.http.cookies)


async def test_a_session_ends_after_an_hour(desk: Desk) -> None:
    secret, clock = await desk.issue("acme", "billing"), FakeClock()
    desk.app.state.sessions = Sessions(PEPPER, clock)
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        clock.time += SESSION_SECONDS * 1_000_000
        assert (await visitor.get("/keys")).status == 200
        clock.time += 1_000_000
        assert is_sent_to_login(await visitor.get("/keys"), ended=True)


async def test_logging_out_ends_the_session_of_this_browser(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        assert is_sent_to_login(await visitor.submit(await visitor.get("/"), "/logout"))
        assert is_sent_to_login(await visitor.get("/"))


async def test_a_cookie_that_was_not_sealed_here_is_nobodys(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    other_vendor = Sessions(b"o" * 32, FakeClock())
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        sealed = visitor.http.cookies["vl2v-session"]
        altered = sealed[:-9] + ("A" if sealed[-9] != "A" else "B") + sealed[-8:]
        for cookie in (altered, secret_sha256(secret), secret, "=", other_vendor.seal(secret_sha256(secret))):
            visitor.http.cookies.clear()
            page = Page(await visitor.http.get("/", headers={"Cookie": f"vl2v-session={cookie}"}))
            assert is_sent_to_login(page, ended=True), cookie


async def test_a_form_without_its_token_is_refused_and_changes_nothing(desk: Desk) -> None:
    secret, other = await desk.issue("acme", "embed", "billing"), await desk.issue("acme", "billing")
    async with Visitor(desk.app) as visitor, Visitor(desk.app) as neighbour:
        login = await visitor.get("/login")
        await neighbour.log_in(other)
        foreign = (await neighbour.get("/")).form("/logout").fields["form_token"]
        for token in ("", foreign, "é"):
            page = await visitor.post("/login", {"form_token": token, "api_key": secret})
            assert (page.status, "nothing was done" in page.text) == (403, True)
        await visitor.submit(login, "/login", api_key=secret)
        keys = (await desk.get("/accounts/acme/keys"))["data"]
        revocation = f"/keys/{keys[0]['id']}/revocation"
        for token in ("", foreign, login.form("/login").fields["form_token"]):
            for path in ("/logout", "/keys", revocation):
                page = await visitor.post(path, {"form_token": token, "act": "a", "scope": "billing"})
                assert (page.status, "nothing was done" in page.text) == (403, True), path
        assert (await visitor.get("/")).status == 200
        assert (await desk.get("/accounts/acme/keys"))["data"] == keys


async def test_no_key_and_no_cookie_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="vl2v_vendor")
    secret, wrong = await desk.issue("acme", "billing"), "vl2v_" + "x" * 43
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(wrong)
        await visitor.log_in(secret)
        made = await visitor.submit(await visitor.get("/keys"), "/keys")
        await visitor.get(f"/statement?search={secret}")
        await visitor.get(f"/receipts/{secret}")
        session = visitor.http.cookies["vl2v-session"]
    (other,) = [word for word in made.words if word.startswith("vl2v_")]
    logged = str([(record.getMessage(), record.__dict__) for record in caplog.records])
    assert "/receipts/vl2v_" in logged
    assert [one for one in (secret, wrong, other, session, session[:40]) if one in logged] == []


async def test_a_form_is_read_up_to_a_small_size(desk: Desk) -> None:
    async with Visitor(desk.app) as visitor:
        assert (await visitor.post("/login", {"api_key": "x" * 9000})).status == 413
        assert (await visitor.post("/login", [("a", str(number)) for number in range(50)])).status == 422
        assert (await visitor.http.post("/login", json={"api_key": "x"})).status_code == 415
        form = {"Content-Type": "application/x-www-form-urlencoded"}

        async def pieces() -> AsyncIterator[bytes]:
            raise AssertionError("it was read")
            yield b""

        for declared in ({"Content-Length": "8193"}, {}):  # without a length it would be chunked
            answer = await visitor.http.post("/login", content=pieces(), headers={**form, **declared})
            assert answer.status_code == 413
        malformed = form
        assert (await visitor.http.post("/login", content=b"api_key=\xff", headers=malformed)).status_code == 422


async def test_a_refusal_is_a_page_with_the_status_of_the_api(desk: Desk) -> None:
    secret = await desk.issue("acme", "billing")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secret)
        page = await visitor.get("/receipts/req_none")
        assert (page.status, page.answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert page.answer.headers["x-request-id"] in page.text
        assert "Request req_none billed nothing to this account. To the bill" in page.text
        assert "Log out" in page.text
        assert (await visitor.get("/statement?before=x")).status == 422
