"""The whole vendor as `serve` wires it, in this process, with an administrator at the desk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import app_client, images, png
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.service.administration import KeyRequest, issue_key
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app

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
        return app_client(self.app, secret or self.secret)

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


@asynccontextmanager
async def open_desk(database_url: str, folder: Path) -> AsyncIterator[Desk]:
    """Make an administrator's key as the command line does, and serve until the block ends.

    Args:
        database_url: a migrated database.
        folder: for secrets and locks.
    """
    settings = Settings(database_url=SecretStr(database_url), data_dir=folder, encoder="hash")
    engine = open_engine(database_url)
    try:
        signer = load_or_create_secrets(settings.secrets_path).signer()
        accounts = SqlAccounts(engine, signer=signer, clock=SystemClock(), actor="cli:tester")
        issued = issue_key(accounts, KeyRequest(account_name="staff", budget_units=0, scopes=frozenset({"admin"})))
        assert issued.secret is not None
        async with open_services(settings, lambda _label, _text: None) as services:
            yield Desk(create_app(services), engine, accounts, issued.secret, issued.key.id)
    finally:
        engine.dispose()
