"""`/docs` is a page of our own that has every route and message of the OpenAPI document."""

from __future__ import annotations

import pytest

from support.vendor.page_visitor import Visitor
from support.vendor.serving_shop import running_vendor

pytestmark = pytest.mark.anyio


async def test_the_reference_has_every_route_and_message() -> None:
    async with running_vendor() as vendor, Visitor(vendor.app) as visitor:
        document = (await visitor.http.get("/openapi.json")).json()
        page, again = await visitor.get("/docs"), await visitor.get("/docs")
    assert (page.status, again.answer.content) == (200, page.answer.content)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page.text
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= page.ids
    targets = {one[1:] for one in page.addresses if one.startswith("#")}
    assert targets - page.ids == set()
    assert len(targets) > len(document["paths"])


async def test_what_anybody_may_ask_for_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor, vendor.client("") as client:
        made: list[object] = []
        openapi = vendor.app.openapi
        monkeypatch.setattr(vendor.app, "openapi", lambda: made.append(1) or openapi())
        first, second = [await client.get("/openapi.json") for _ in range(2)]
    assert len(made) == 1
    assert first.content == second.content
    assert first.headers["content-type"] == "application/json"
    assert first.json() == openapi()


async def test_fields_are_described_with_type_and_bounds() -> None:
    async with running_vendor() as vendor, Visitor(vendor.app) as visitor:
        text = (await visitor.get("/docs")).text
    assert "after_seq integer In the query. (at least 0, at most 9007199254740991, 0 when absent)" in text
    assert "scopes required list of 'embed' or 'billing' or 'admin' (at least 1 entries)" in text
    assert "API key with the scope billing" in text
    assert "`" not in text
