"""Middleware that notices when a client goes away before its answer begins."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ClientWatch:
    """Ends the work of a client that went away: what still waits is neither done nor billed.

    A charge that has begun is finished all the same, and its vectors can be fetched free.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        work = asyncio.current_task()
        if scope["type"] != "http" or work is None:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(work, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.client_has_left:
                raise
            work.uncancel()
            raise ClientDisconnect from None
        finally:
            exchange.close()


class _Exchange:
    """One request: after its body is read, nothing but the client's departure can come in."""

    def __init__(self, work: asyncio.Task[Any], receive: Receive, send: Send) -> None:
        self._work = work
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None
        self._has_answered = False
        self.client_has_left = False

    async def receive(self) -> Message:
        if self._watch is not None:
            await self._watch
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._watch = asyncio.create_task(self._wait_for_departure())
        return message

    async def send(self, message: Message) -> None:
        self._has_answered = True
        await self._send(message)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _wait_for_departure(self) -> None:
        await self._receive()
        if not self._has_answered:
            self.client_has_left = True
            self._work.cancel()
