"""A customer at the vendor's pages in a browser: the bill, receipts, keys, refusals; how they look; and by keyboard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from support.ledger.ledger_shop import FakeClock, item_key
from support.vendor.live_parties import Vendor, free_port
from vl2v_contract.records import PublicKeys, RequestRecord, receipt_message, verify
from vl2v_vendor.domain.accounts import secret_sha256
from vl2v_vendor.keys.secrets import load_secrets
from vl2v_vendor.web.pages.sessions import Sessions

SCHEMES, WIDTHS = ("light", "dark"), (1280, 390)

OpenPage = Callable[..., Any]
CheckPage = Callable[[Any, str], None]


@pytest.fixture(scope="module")
def vendor(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    opened = Vendor(tmp_path_factory.mktemp("browser") / "vendor", free_port())
    opened.start()
    yield opened
    opened.stop()


@pytest.fixture
def secret(vendor: Vendor, request: pytest.FixtureRequest) -> str:
    """A key of an account of the test's own, that has 40 queries."""
    return vendor.create_key(request.node.name[:60], 40)


def buy(vendor: Vendor, secret: str, *names: str) -> httpx.Response:
    body = {"items": [{"text": name, "item_key": item_key(name)} for name in names]}
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.post(f"{vendor.url}/v1/embeddings/texts", json=body, headers=headers, trust_env=False)


def log_in(page: Any, vendor: Vendor, secret: str) -> None:
    page.goto(vendor.url)
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Bill of").wait_for()


def keys_of(vendor: Vendor, secret: str) -> list[dict[str, Any]]:
    keys = json.loads(vendor.command("keys", "list", "--json").out)
    (account_id,) = {key["account_id"] for key in keys if key["prefix"] == secret[:13]}
    return [key for key in keys if key["account_id"] == account_id]


def test_a_charge_is_found_and_its_receipt_verifies_offline(vendor: Vendor, secret: str, open_page: OpenPage) -> None:
    for name in ("cat", "dog", "owl"):
        assert buy(vendor, secret, name).status_code == 200
    page = open_page()
    log_in(page, vendor, secret)
    page.get_by_role("link", name="Statement", exact=True).click()
    page.get_by_label("Find an entry").fill(item_key("dog"))
    page.get_by_role("button", name="Find").click()
    found = page.locator("tr.found")
    assert "1 text by hash-64" in found.inner_text()
    with page.expect_download() as started:
        found.get_by_role("link", name="Receipt").click()
    assert started.value.suggested_filename == "receipt-3.json"
    record = TypeAdapter(RequestRecord).validate_json(Path(started.value.path()).read_bytes())
    answer = httpx.get(f"{vendor.url}/v1/billing/keys", trust_env=False)
    (key,) = TypeAdapter(PublicKeys).validate_json(answer.content).keys
    assert [item.item_key for item in record.items] == [item_key("dog")]
    assert record.receipt.entry.hash() == record.receipt.entry_hash
    assert verify(key.public_key, receipt_message(record.receipt.entry_hash), record.receipt.signature)


def test_a_key_is_made_used_and_revoked(vendor: Vendor, secret: str, open_page: OpenPage) -> None:
    page = open_page()
    log_in(page, vendor, secret)
    page.get_by_role("link", name="API keys", exact=True).click()
    page.get_by_label("What it is for").fill("laptop")
    page.get_by_label("Queries that it may spend").fill("2")
    page.get_by_role("button", name="Make the key").click()
    made = page.locator("#secret").inner_text()
    page.reload()  # sends the form again
    assert page.locator("#secret").count() == 0
    assert len(keys_of(vendor, secret)) == 2
    assert [buy(vendor, made, *names).status_code for names in ("ab", "c")] == [200, 402]
    page.get_by_role("link", name="To the API keys").click()
    row = page.get_by_role("row").filter(has_text="laptop")
    assert "0 of 2 left" in row.inner_text()
    row.get_by_text("Revoke").first.click()
    row.get_by_role("button", name="Revoke it for ever").click()
    page.get_by_role("row").filter(has_text="laptop").get_by_text("revoked").wait_for()
    assert buy(vendor, made, "a").status_code == 401


def test_a_budget_is_reached(vendor: Vendor, secret: str, open_page: OpenPage) -> None:
    assert buy(vendor, secret, *map(str, range(40))).status_code == 200
    assert buy(vendor, secret, "one more").status_code == 402
    page = open_page()
    log_in(page, vendor, secret)
    assert page.get_by_text("The budget is spent").is_visible()
    assert "0\nof 40; 40 used" in page.locator(".facts").inner_text()


def test_a_wrong_key_and_an_ended_session_show_nothing(vendor: Vendor, secret: str, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(vendor.url)
    page.get_by_label("API key").fill(f"{secret}x")
    page.get_by_role("button", name="Log in").click()
    assert "knows no such API key" in page.get_by_role("alert").inner_text()
    hour_ago = FakeClock(time.time_ns() // 1000 - 3_601_000_000)
    sessions = Sessions(load_secrets(vendor.home / "vendor-secrets.json").page_secret, hour_ago)
    cookie = {"name": "vl2v-session", "value": sessions.seal(secret_sha256(secret)), "url": vendor.url}
    page.context.add_cookies([cookie])
    page.goto(f"{vendor.url}/keys")
    assert page.url == f"{vendor.url}/login?ended"
    assert page.get_by_text("Your session has ended").is_visible()
    log_in(page, vendor, secret)


def test_a_form_of_another_site_does_nothing(vendor: Vendor, secret: str, open_page: OpenPage) -> None:
    page = open_page()
    log_in(page, vendor, secret)
    page.goto(f"{vendor.url}/keys")
    page.locator('form[action="/keys"] input[name=form_token]').evaluate("field => field.value = 'guessed'")
    page.get_by_role("button", name="Make the key").click()
    assert "nothing was done" in page.get_by_role("alert").inner_text()
    fields = '<input name="act" value="a"><input name="scope" value="billing"><button>Win</button>'
    form = f'<form method="post" action="{vendor.url}/keys">{fields}</form>'
    page.route("http://other.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://other.example/")
    page.get_by_role("button", name="Win").click()
    page.get_by_role("heading", name="Log in").wait_for()  # the cookie did not come along
    page.goto(f"{vendor.url}/keys")
    assert page.get_by_role("heading", name="API keys").is_visible()
    assert len(keys_of(vendor, secret)) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_look_well_and_axe_finds_nothing_serious(
    vendor: Vendor, secret: str, open_page: OpenPage, check_page: CheckPage, width: int, scheme: str
) -> None:
    for number in range(3):
        buy(vendor, secret, *(f"{number} {name}" for name in range(2 * number + 1)))
    page = open_page(width=width, scheme=scheme)
    page.goto(vendor.url)
    page.get_by_label("API key").fill("vl2v_wrong")
    page.get_by_role("button", name="Log in").click()
    check_page(page, f"login-{width}-{scheme}")
    log_in(page, vendor, secret)
    for path in ("/", "/statement?search=2", "/statement?search=none", "/keys", "/docs", "/receipts/none"):
        page.goto(f"{vendor.url}{path}")
        for closed in page.locator("summary").all():
            closed.click()
        check_page(page, f"{path.strip('/').replace('?search=', '-').replace('/', '-') or 'bill'}-{width}-{scheme}")
    page.goto(f"{vendor.url}/keys")
    page.get_by_role("button", name="Make the key").click()
    check_page(page, f"new-key-{width}-{scheme}")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    vendor: Vendor, secret: str, open_page: OpenPage
) -> None:
    page = open_page(width=390)
    page.goto(vendor.url)
    page.locator("#api_key:focus").wait_for()
    page.keyboard.type(secret)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Bill of").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.get_by_text("Skip to the content").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(f"{vendor.url}/keys")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
    assert {"Log out", "Statement", "name", "scope", "limit_units", "expires_days", "Make the key"} <= reached
