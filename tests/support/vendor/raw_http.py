"""Raw HTTP for tests of the connection itself, and an application to ask."""

from __future__ import annotations

import asyncio
from typing import Any

HOST = b"Host: vendor\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"


async def exchange(port: int, sent: bytes) -> bytes:
    """Everything that is answered until the vendor closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), timeout=10)
    finally:
        writer.close()


class PlainApp:
    """Answers each request with its client's address, or with many bytes, and keeps what it was asked."""

    def __init__(self, answer_bytes: int = 0) -> None:
        self._answer_bytes = answer_bytes
        self.paths: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await self.gate.wait()
        body = b"x" * self._answer_bytes or scope["client"][0].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": body})
