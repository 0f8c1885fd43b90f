"""The real vendor in this process: its own services, ledger and app over a SQLite file, behind a plain transport."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine

from vl2v_contract.records import SigningKey
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import STAFF_LOCK_WAIT_SECONDS, open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app


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
    """Open the vendor, on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="vendor", daemon=True)
    thread.start()
    bridge = _Bridge(loop)
    serving = asyncio.run_coroutine_threadsafe(bridge.serve(settings), loop)
    engine = open_engine(settings.database, lock_wait_seconds=STAFF_LOCK_WAIT_SECONDS)
    try:
        bridge.opened.wait()
        if serving.done():
            serving.result()
        signer = load_or_create_secrets(settings.secrets_path).signer()
        yield InProcessVendor(settings, bridge, SqlAccounts(engine, signer=signer, clock=SystemClock()), engine)
    finally:
        engine.dispose()
        loop.call_soon_threadsafe(bridge.closing.set)
        serving.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Bridge(httpx.BaseTransport):
    """From a client that blocks to an app that awaits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._app: httpx.ASGITransport | None = None
        self.opened = threading.Event()
        self.closing = asyncio.Event()

    async def serve(self, settings: Settings) -> None:
        try:
            async with open_services(settings, lambda _label, _text: None) as services:
                self._app = httpx.ASGITransport(create_app(services))
                self.opened.set()
                await self.closing.wait()
        finally:
            self.opened.set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        copied = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        return asyncio.run_coroutine_threadsafe(self._exchange(copied), self._loop).result()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        assert self._app is not None
        response = await self._app.handle_async_request(request)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content)
