"""Middleware that notices when a client goes away before its answer begins."""

from __future__ import annotations

import asyncio
from typing import cast

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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        work = cast("asyncio.Task[None]", asyncio.current_task())
        watch: asyncio.Task[None] | None = None
        has_answered = client_has_left = False

        async def wait_for_departure() -> None:
            nonlocal client_has_left
            await receive()
            if not has_answered:
                client_has_left = True
                work.cancel()

        async def receive_watched() -> Message:
            """After the body is read, nothing but the client's departure can come in."""
            nonlocal watch
            if watch is not None:
                await watch
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watch = asyncio.create_task(wait_for_departure())
            return message

        async def send_noted(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        try:
            await self._app(scope, receive_watched, send_noted)
        except asyncio.CancelledError:
            if not client_has_left:
                raise
            work.uncancel()
            raise ClientDisconnect from None
        finally:
            if watch is not None:
                watch.cancel()
