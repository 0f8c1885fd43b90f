"""The vendor's app on a loop of its own, and a transport by which clients that block can talk to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from vl2v_vendor.bootstrap import open_services
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
