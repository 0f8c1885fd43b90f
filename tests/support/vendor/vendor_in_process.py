"""The real vendor in this process, on an event loop of its own, and a transport for clients that block."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from sqlalchemy import Engine

from vl2v_contract.records import SigningKey
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import STAFF_LOCK_WAIT_SECONDS, open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run a story on the loop; returns when it has ended."""
        return asyncio.run_coroutine_threadsafe(story, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class AppTransport(httpx.BaseTransport):
    """Sends a blocking client's requests to an app."""

    def __init__(self, app: FastAPI, loop: LoopThread) -> None:
        self._inner = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._loop.run(self._send(request))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = await self._inner.handle_async_request(sent)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


@contextmanager
def running(settings: Settings) -> Iterator[AppTransport]:
    """The server of these settings, as `bootstrap` opens it, on a loop of its own."""
    loop = LoopThread()
    try:
        with serving(settings, loop) as app:
            yield AppTransport(app, loop)
    finally:
        loop.close()


@contextmanager
def serving(settings: Settings, loop: LoopThread) -> Iterator[FastAPI]:
    """The app of these settings, on a loop."""
    opened = open_services(settings, lambda _label, _text: None)
    services = loop.run(opened.__aenter__())
    try:
        yield create_app(services)
    finally:
        loop.run(opened.__aexit__(None, None, None))


@dataclass(frozen=True)
class InProcessVendor:
    """A vendor that is open for business.

    Attributes:
        transport: for `httpx.Client`; each request is a whole exchange with the app.
        accounts: the staff's side.
    """

    settings: Settings
    transport: httpx.BaseTransport
    accounts: SqlAccounts
    engine: Engine

    @property
    def signing_keys(self) -> list[SigningKey]:
        """The private keys, oldest first: what a lying vendor signs with."""
        return [stored.key for stored in load_or_create_secrets(self.settings.secrets_path).keys]


def vendor_settings(home: Path, migrated_sqlite: Path, **settings: object) -> Settings:
    """A vendor with the hash encoder whose data are in `home`; its database starts as a copy of the migrated one."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "vendor.db").exists():
        shutil.copy(migrated_sqlite, home / "vendor.db")
    fixed = {"data_dir": home, "database_url": f"sqlite:///{home / 'vendor.db'}", "encoder": "hash"}
    return Settings.model_validate({**fixed, **settings})


@contextmanager
def open_vendor(settings: Settings) -> Iterator[InProcessVendor]:
    """Serve these settings until the block ends, and be the staff beside the server."""
    engine = open_engine(settings.database, lock_wait_seconds=STAFF_LOCK_WAIT_SECONDS)
    try:
        with running(settings) as transport:
            signer = load_or_create_secrets(settings.secrets_path).signer()
            yield InProcessVendor(settings, transport, SqlAccounts(engine, signer=signer, clock=SystemClock()), engine)
    finally:
        engine.dispose()
