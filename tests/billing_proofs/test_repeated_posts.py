"""Every POST of the API sent twice under its name leaves the whole database as the first one did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select

from support.ledger.ledger_shop import item_key
from support.vendor.admin_desk import ADMIN, IMAGES, Desk, open_desk
from support.vendor.serving_shop import images, png
from vl2v_contract.wire.embeddings import RequestOptions
from vl2v_contract.wire.frames import pack_upload
from vl2v_contract.wire.headers import OCTET_STREAM
from vl2v_vendor.ledger_sql.tables import metadata

pytestmark = pytest.mark.anyio

TEXTS, REPLAY, OPENAI = "/v1/embeddings/texts", "/v1/embeddings/replay", "/v1/embeddings"
RED, BLUE = png("red"), png("blue")
FILES = [("images", ("a.png", RED)), ("images", ("b.png", BLUE))]


@dataclass(frozen=True)
class Post:
    """One request; `operation` is its path in the OpenAPI document."""

    operation: str
    content: dict[str, Any]
    key: str | None = None
    path: dict[str, str] = field(default_factory=dict)

    async def send(self, desk: Desk, secret: str) -> httpx.Response:
        named = {} if self.key is None else {"Idempotency-Key": self.key}
        async with desk.client(secret) as client:
            content = {**self.content, "headers": {**self.content.get("headers", {}), **named}}
            response = await client.post(self.operation.format(**self.path), **content)
        assert response.is_success, response.text
        return response


def texts(*words: str, named: bool = True) -> dict[str, Any]:
    return {"json": {"items": [{"text": word, "item_key": item_key(word) if named else None} for word in words]}}


def on_sale() -> list[Post]:
    """Purchases under item keys, or under an `Idempotency-Key`, in every form."""
    framed = pack_upload(RequestOptions(item_keys=[item_key("e"), item_key("f")]), [RED, BLUE])
    options = {"options": json.dumps({"item_keys": [item_key("c"), item_key("d")]})}
    return [
        Post(IMAGES, {"json": images(RED, BLUE, keys=[item_key("a"), item_key("b")])}),
        Post(IMAGES, {"json": images(RED, BLUE)}, key="images"),
        Post(IMAGES, {"files": FILES, "data": options}),
        Post(IMAGES, {"files": FILES}, key="files"),
        Post(TEXTS, texts("a cat", "a dog")),
        Post(TEXTS, texts("a cat", "a dog", named=False), key="texts"),
        Post(IMAGES, {"content": framed, "headers": {"Content-Type": OCTET_STREAM}}),
        Post(OPENAI, {"json": {"model": "hash-64", "input": ["a cow", "a pig"]}}, key="openai"),
        Post(REPLAY, {"json": {"item_keys": [item_key("a")]}}),
    ]


def at_the_counter(api_key_id: str) -> list[Post]:
    """Acts of the staff under an `Idempotency-Key`."""
    account = {"account": "acme"}
    price = {"model_id": "m", "modality": "text", "unit_price_micro": 7, "currency": "EUR"}
    return [
        Post(f"{ADMIN}/accounts", {"json": {"name": "other", "budget_units": 3}}, "account"),
        Post(f"{ADMIN}/accounts/{{account}}/topups", {"json": {"units": 5}}, "top-up", account),
        Post(f"{ADMIN}/accounts/{{account}}/refunds", {"json": {"seq": 2, "units": 1, "note": "x"}}, "refund", account),
        Post(f"{ADMIN}/accounts/{{account}}/keys", {"json": {"scopes": ["embed"]}}, "key", account),
        Post(f"{ADMIN}/keys/{{key}}/revocation", {}, "end", {"key": api_key_id}),
        Post(f"{ADMIN}/prices", {"json": price}, "price"),
    ]


def everything(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


async def open_account(desk: Desk) -> str:
    await desk.post("/accounts", {"name": "acme", "budget_units": 100})
    return await desk.issue("acme", "embed", "billing")


async def test_each_post_repeated_changes_nothing(
    database_url: str, tmp_path: Path, prove: Callable[..., None]
) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        secret = await open_account(desk)
        doomed = await desk.post("/accounts/acme/keys", {"scopes": ["embed"]})
        acts = at_the_counter(doomed.json()["key"]["id"])
        sent = [(post, secret) for post in on_sale()] + [(post, desk.secret) for post in acts]
        documented = {path for path, operations in desk.app.openapi()["paths"].items() if "post" in operations}
        assert {post.operation for post, _ in sent} == documented
        unchanged = 0
        for post, bearer in sent:
            first = await post.send(desk, bearer)
            before = everything(desk.engine)
            again = await post.send(desk, bearer)
            assert (again.status_code, again.headers["idempotent-replayed"]) == (first.status_code, "true"), post
            unchanged += everything(desk.engine) == before
        unchanged, sent = unchanged, len(sent)
    kind = database_url.partition(":")[0]
    prove(f"repeated POSTs that change no row, {kind}", unchanged, goal=f"{sent}, all", met=unchanged == sent)


async def test_without_a_name_each_request_is_a_new_purchase(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        secret = await open_account(desk)
        for post in (Post(IMAGES, {"json": images(RED)}), Post(TEXTS, texts("a cat", named=False))):
            before = (await desk.get("/accounts/acme"))["used_units"]
            items = [(await post.send(desk, secret)).json()["data"][0] for _ in range(2)]
            assert (await desk.get("/accounts/acme"))["used_units"] == before + 2
            assert [item["status"] for item in items] == ["billed", "billed"]
            assert items[0]["embedding"] == items[1]["embedding"]


async def test_another_payload_under_the_same_idempotency_key_is_refused_item_by_item_and_billed_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async with open_desk(database_url, tmp_path) as desk:
        secret = await open_account(desk)
        pairs = [
            (
                Post(IMAGES, {"json": images(RED, BLUE)}, "one"),
                Post(IMAGES, {"json": images(RED, png("green"))}, "one"),
            ),
            (
                Post(TEXTS, texts("a cat", "a dog", named=False), "two"),
                Post(TEXTS, texts("a cat", "a bird", named=False), "two"),
            ),
        ]
        for first, other in pairs:
            await first.send(desk, secret)
            before = everything(desk.engine)
            same, changed = (await other.send(desk, secret)).json()["data"]
            assert (same["status"], changed["status"], changed["error"]["code"]) == (
                "replayed", "failed", "item_key_mismatch",
            )  # fmt: skip
            assert everything(desk.engine) == before
