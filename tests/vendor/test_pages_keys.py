"""The customer's own API keys: made and revoked by a key that may do as much, and logged under it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.vendor.admin_desk import Desk, open_desk
from support.vendor.page_visitor import Page, Visitor
from vl2v_vendor.service import customer_keys

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, tmp_path) as opened:
        await opened.post("/accounts", {"name": "acme", "budget_units": 100})
        await opened.post("/accounts", {"name": "globex", "budget_units": 100})
        yield opened


async def keys_of(desk: Desk, account: str = "acme") -> dict[str, dict[str, object]]:
    return {key["prefix"]: key for key in (await desk.get(f"/accounts/{account}/keys"))["data"]}


def secret_in(page: Page) -> str | None:
    (found,) = [word for word in page.words if word.startswith("vl2v_")] or [None]
    return found


async def revoke(visitor: Visitor, key_id: object) -> Page:
    token = (await visitor.get("/keys")).form("/logout").fields
    return await visitor.post(f"/keys/{key_id}/revocation", token | {"act": f"revoke {key_id}"})


async def test_a_key_is_made_shown_once_and_logged(desk: Desk) -> None:
    own = await desk.issue("acme", "embed", "billing", name="main")
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(own)
        page = await visitor.get("/keys")
        filled = page.form("/keys").fields | {"name": "laptop", "limit_units": "3", "expires_days": "7"}
        fields = [*filled.items(), ("scope", "embed")]
        made, again = await visitor.post("/keys", fields), await visitor.post("/keys", fields)
        secret = secret_in(made)
        assert (made.status, again.status, secret_in(again)) == (201, 201, None)
        assert secret is not None
        assert "This key was made before" in again.text
        assert secret not in (await visitor.get("/keys")).answer.text
    key = (await keys_of(desk))[secret[:13]]
    assert (key["name"], key["limit_units"], key["scopes"]) == ("laptop", 3, ["billing", "embed"])
    assert key["expires_at"] == int(str(key["created_at"])) + 7 * 86_400_000_000
    assert len(await keys_of(desk)) == 2
    assert (await desk.buy(secret, "a")).status_code == 200
    act = (await desk.get("/log?limit=1000"))["data"][-1]
    assert (act["act"], act["actor"]) == ("create_key", (await keys_of(desk))[own[:13]]["id"])
    assert secret not in str(desk.rows("SELECT * FROM admin_log"))


async def test_a_form_that_was_filled_in_anew_makes_another_key(desk: Desk) -> None:
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("acme", "billing"))
        page = await visitor.get("/keys")  # a browser that goes back to it sends the same hidden fields
        made = [await visitor.submit(page, "/keys", name=name) for name in ("laptop", "phone", "laptop")]
    assert [(one.status, secret_in(one) is None) for one in made] == [(201, False), (201, False), (201, True)]
    assert sorted(str(key["name"]) for key in (await keys_of(desk)).values()) == ["", "laptop", "phone"]


async def test_a_key_is_revoked_at_once_and_logged(desk: Desk) -> None:
    own, other = await desk.issue("acme", "embed", "billing"), await desk.issue("acme", "embed", name="job")
    keys = await keys_of(desk)
    revocation = f"/keys/{keys[other[:13]]['id']}/revocation"
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(own)
        answer = await visitor.submit(await visitor.get("/keys"), revocation)
        assert (answer.status, answer.answer.headers["location"]) == (303, "/keys")
        after = await visitor.get("/keys")
        assert not [form for form in after.forms if form.action == revocation]
        assert "revoked 20" in after.text
    assert (await desk.buy(other, "a")).status_code == 401
    act = (await desk.get("/log?limit=1000"))["data"][-1]
    assert (act["act"], act["actor"]) == ("revoke_key", keys[own[:13]]["id"])


async def test_a_key_that_is_revoked_again_adds_nothing_to_the_log(desk: Desk) -> None:
    own, other = await desk.issue("acme", "embed", "billing"), await desk.issue("acme", "embed")
    key_id = (await keys_of(desk))[other[:13]]["id"]
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(own)
        token = (await visitor.get("/keys")).form("/logout").fields
        acts = []
        for number in range(3):
            answer = await visitor.post(f"/keys/{key_id}/revocation", token | {"act": f"revoke {number}"})
            assert answer.status == 303
            acts.append(len((await desk.get("/log?limit=1000"))["data"]))
    assert len(set(acts)) == 1


async def test_a_key_may_revoke_itself_whatever_it_is(desk: Desk) -> None:
    own = await desk.issue("acme", "billing", limit_units=3, expires_days=1)
    key_id = (await keys_of(desk))[own[:13]]["id"]
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(own)
        assert (await visitor.submit(await visitor.get("/keys"), f"/keys/{key_id}/revocation")).status == 303
        assert (await visitor.get("/keys")).answer.headers["location"] == "/login?ended"


BOTH = ("embed", "billing")
OFFERS: list[tuple[tuple[str, ...], dict[str, object], set[str]]] = [
    (BOTH, {}, {"embed", "billing"}),
    (("billing",), {}, {"billing"}),
    ((*BOTH, "admin"), {}, {"embed", "billing"}),
    (BOTH, {"limit_units": 50}, set()),
    (BOTH, {"expires_days": 1}, set()),
]


async def test_a_key_makes_none_that_may_do_more(desk: Desk) -> None:
    for own, options, offered in OFFERS:
        async with Visitor(desk.app) as visitor:
            await visitor.log_in(await desk.issue("acme", *own, **options))
            page = await visitor.get("/keys")
            boxes = {attributes["value"] for _, attributes in page.tags if attributes.get("type") == "checkbox"}
            assert boxes == offered
            before = len(await keys_of(desk))
            token = page.form("/logout").fields["form_token"]
            for scope in ("embed", "billing", "admin", "bake"):
                fields = {"form_token": token, "act": scope, "scope": scope}
                assert (await visitor.post("/keys", fields)).status == (201 if scope in offered else 403), scope
            assert len(await keys_of(desk)) == before + len(offered)


async def test_a_key_revokes_none_that_may_do_more_or_is_not_the_account_s(desk: Desk) -> None:
    secrets = {
        "auditor": await desk.issue("acme", "billing"),
        "buyer": await desk.issue("acme", "embed", "billing"),
        "brief": await desk.issue("acme", "embed", "billing", expires_days=1),
        "small": await desk.issue("acme", "embed", "billing", limit_units=1),
        "admin": await desk.issue("acme", "admin"),
    }
    foreign_secret = await desk.issue("globex", "billing")
    foreign_id = (await keys_of(desk, "globex"))[foreign_secret[:13]]["id"]
    ids = {name: (await keys_of(desk))[secret[:13]]["id"] for name, secret in secrets.items()}
    for by in ("auditor", "brief", "small"):
        async with Visitor(desk.app) as visitor:
            await visitor.log_in(secrets[by])
            for name in ids.keys() - {by}:
                assert (await revoke(visitor, ids[name])).status == 403, (by, name)
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(secrets["buyer"])
        assert (await revoke(visitor, ids["admin"])).status == 403
        assert (await revoke(visitor, foreign_id)).status == (await revoke(visitor, "key_none")).status == 404
        for name in ("auditor", "brief", "small"):
            assert (await revoke(visitor, ids[name])).status == 303, name
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("acme", "embed", "billing", "admin"))
        assert (await revoke(visitor, ids["admin"])).status == 403  # the staff's keys are not the pages' business
    revoked = {key["id"] for key in (await keys_of(desk)).values() if key["revoked_at"] is not None}
    assert revoked == {ids[name] for name in ("auditor", "brief", "small")}
    assert (await keys_of(desk, "globex"))[foreign_secret[:13]]["revoked_at"] is None


async def test_a_wrong_form_is_shown_again_with_what_was_written(desk: Desk) -> None:
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("acme", "embed", "billing"))
        for field, value in (
            ("limit_units", "1.5"),
            ("limit_units", "-1"),
            ("expires_days", "0"),
            ("name", "a\u0000b"),
        ):
            page = await visitor.get("/keys")
            fields = page.form("/keys").fields | {"name": "laptop", field: value}
            shown = await visitor.post("/keys", fields)
            assert (shown.status, "No key was made" in shown.text) == (422, True), field
            assert shown.form("/keys").fields["name"] == fields["name"]
        nothing = {name: value for name, value in page.form("/keys").fields.items() if name != "scope"}
        assert "choose at least one" in (await visitor.post("/keys", nothing)).text
    assert len(await keys_of(desk)) == 1


async def test_the_keys_of_an_account_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_keys, "MAX_KEYS", 2)
    async with Visitor(desk.app) as visitor:
        await visitor.log_in(await desk.issue("acme", "billing"))
        assert (await visitor.submit(await visitor.get("/keys"), "/keys")).status == 201
        assert (await visitor.submit(await visitor.get("/keys"), "/keys")).status == 422
    assert len(await keys_of(desk)) == 2
