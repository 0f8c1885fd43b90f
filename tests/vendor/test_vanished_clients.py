"""A client that goes away before its work has begun costs nothing, and is not worked for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import Vendor, images, png, running_vendor
from vl2v_vendor.domain.encoder import PixelBatch, VectorBatch
from vl2v_vendor.engine.models.hash_encoder import HashEncoder

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class GatedEncoder(HashEncoder):
    """Counts images, and holds each batch until it is let through."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[int] = field(default_factory=list)

    async def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        self.batches.append(len(pixels))
        self.entered.set()
        await self.gate.wait()
        return await HashEncoder.encode_images(self, pixels)


class Caller:
    """One request on a connection that can be dropped."""

    def __init__(self, vendor: Vendor, name: str) -> None:
        body = json.dumps(images(png(name), keys=[item_key(name)])).encode()
        self._left = asyncio.Event()
        self._messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        self.statuses: list[int] = []
        headers = [
            (b"authorization", f"Bearer {vendor.secret}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/embeddings/images", "raw_path": b"", "query_string": b"", "root_path": "", "headers": headers,
            "server": ("vendor", 80), "client": ("127.0.0.1", 1), "state": {},
        }  # fmt: skip
        self.task = asyncio.create_task(vendor.app(scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])


async def test_a_client_that_leaves_while_it_waits_is_not_worked_for_and_not_billed() -> None:
    encoder = GatedEncoder()

    async with running_vendor(encoder=encoder) as vendor:
        first = Caller(vendor, "red")
        await encoder.entered.wait()
        leaving = Caller(vendor, "blue")
        while not vendor.services.lanes.queued_items["image"]:
            await asyncio.sleep(0)
        leaving.leave()
        await leaving.task
        assert leaving.statuses == []
        encoder.gate.set()
        await first.task
        last = Caller(vendor, "green")
        await last.task
        assert (first.statuses, last.statuses) == ([200], [200])
        assert encoder.batches == [1, 1]
        assert set(vendor.ledger.paid) == {item_key("red"), item_key("green")}
        assert 'status="499"' in (await vendor.client().get("/metrics")).text


async def test_a_client_that_leaves_after_its_answer_has_begun_is_answered() -> None:
    encoder = GatedEncoder()
    encoder.gate.set()

    async with running_vendor(encoder=encoder) as vendor:
        caller = Caller(vendor, "red")
        await caller.task
        caller.leave()
        await asyncio.sleep(0)
        assert caller.statuses == [200]
