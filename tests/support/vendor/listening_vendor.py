"""An app behind a real socket, on the event loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from vl2v_vendor.cli.server import bind, server_config
from vl2v_vendor.web.connections import ConnectionLimits


@asynccontextmanager
async def listening(app: ASGIApp, limits: ConnectionLimits | None = None) -> AsyncIterator[int]:
    """The app behind the vendor's own server on loopback; yields its port."""
    chosen = limits or ConnectionLimits(64)
    with bind("127.0.0.1", 0, chosen) as listener:
        server = uvicorn.Server(server_config(app, chosen))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
