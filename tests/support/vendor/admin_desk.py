"""The whole vendor as `serve` wires it, in this process, with an administrator at the desk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text

from support.vendor.serving_shop import images, item_key, png
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.service.administration import KeyRequest, issue_key
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app

T = TypeVar("T")

ADMIN = "/v1/admin"
IMAGES = "/v1/embeddings/images"


@dataclass
class Desk:
    """A running vendor and its first administrator."""

    app: FastAPI
    engine: Engine
    accounts: SqlAccounts
    secret: str
    admin_key_id: str

    def client(self, secret: str | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        bearer = {"Authorization": f"Bearer {secret or self.secret}"}
        return httpx.AsyncClient(transport=transport, base_url="http://vendor", headers=bearer)

    async def post(
        self, path: str, body: object = None, *, key: str | None = None, secret: str | None = None
    ) -> httpx.Response:
        """An act, under an `Idempotency-Key` if there is one."""
        named = {} if key is None else {"Idempotency-Key": key}
        async with self.client(secret) as client:
            return await client.post(f"{ADMIN}{path}", json=body, headers=named)

    async def get(self, path: str, *, secret: str | None = None) -> Any:
        """What a successful GET answers."""
        async with self.client(secret) as client:
            response = await client.get(f"{ADMIN}{path}")
        assert response.status_code == 200, response.text
        return response.json()

    async def issue(self, account: str, *scopes: str, **options: object) -> str:
        """A new key's secret, by the API."""
        answer = await self.post(f"/accounts/{account}/keys", {"scopes": list(scopes), **options})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    async def buy(self, secret: str, *names: str) -> httpx.Response:
        """One image for each name."""
        async with self.client(secret) as client:
            body = images(*(png((number, 0, 0)) for number in range(len(names))), keys=[item_key(n) for n in names])
            return await client.post(IMAGES, json=body)

    def rows(self, statement: str) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]


def at_the_desk(database_url: str, folder: Path, story: Callable[[Desk], Awaitable[T]]) -> T:
    """Make an administrator's key as the command line does, serve, run a story, and stop.

    Args:
        database_url: a migrated database.
        folder: for secrets and locks.
        story: what happens.
    """
    settings = Settings(database_url=SecretStr(database_url), data_dir=folder, encoder="hash")

    async def told() -> T:
        async with AsyncExitStack() as stack:
            engine = open_engine(database_url)
            stack.callback(engine.dispose)
            signer = load_or_create_secrets(settings.secrets_path).signer()
            accounts = SqlAccounts(engine, signer=signer, clock=SystemClock(), actor="cli:tester")
            request = KeyRequest(account_name="staff", budget_units=0, scopes=frozenset({"admin"}))
            issued = issue_key(accounts, request)
            assert issued.secret is not None
            services = await stack.enter_async_context(open_services(settings, lambda _label, _text: None))
            return await story(Desk(create_app(services), engine, accounts, issued.secret, issued.key.id))

    return asyncio.run(told())
