"""Bodies that are small and cost much: slow ones, JSON of very many values, files that decode to far more."""

from __future__ import annotations

import asyncio
import json
import string
import time
import tracemalloc
from itertools import islice, product
from typing import Any

import pytest

from support.vendor.listening_vendor import listening
from support.vendor.serving_shop import LIMITS, images, png, running_vendor
from vl2v_vendor.domain.encoder import MEBIBYTE, PreparedItem
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.web import body_limit
from vl2v_vendor.web.body_limit import BODIES_AT_ONCE, BodyLimit

pytestmark = pytest.mark.anyio

WORD = string.ascii_letters.encode()
IMAGES, TEXTS, OPENAI = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings"
MANY = LIMITS.max_request_bytes


async def test_a_body_that_dawdles_ends_though_it_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "_LONGEST_PAUSE_SECONDS", 0.3)

    async with running_vendor() as vendor, listening(vendor.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {IMAGES} HTTP/1.1\r\nHost: vendor\r\nAuthorization: Bearer {vendor.secret}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode())
        answer = asyncio.ensure_future(reader.readline())
        for _ in range(100):  # a byte long before each pause is too long
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.05)
            if answer.done():
                break
        assert (await asyncio.wait_for(answer, timeout=10)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_the_room_of_a_body_is_free_once_its_answer_begins_even_if_nobody_reads_it() -> None:
    answered = asyncio.Event()

    async def answer(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * MANY, "more_body": False}

    async def never(_message: Any) -> None:
        await answered.wait()

    limit = BodyLimit(answer, max_request_bytes=MANY)
    waiting = [
        asyncio.create_task(limit({"type": "http", "headers": []}, receive, never)) for _ in range(3 * BODIES_AT_ONCE)
    ]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)  # none was refused
    answered.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("path", "body", "mebibytes"),
    [
        (TEXTS, b'{"items":[%s]}' % b",".join([b"1"] * 90_000), 5),
        (TEXTS, b'{"items":[%s]}' % b",".join([b'{"text":""}'] * 80_000), 30),
        (OPENAI, b'{"model":"hash","input":[%s]}' % b",".join([b"1"] * 90_000), 5),
        (TEXTS, b"{%s}" % b",".join(b'"%s":0' % bytes(name) for name in islice(product(WORD, repeat=3), 110_000)), 5),
        (IMAGES, b"[%s]" % b",".join([b"[]"] * 200_000), 5),
    ],
)
async def test_json_of_very_many_values_is_refused_for_little_memory(path: str, body: bytes, mebibytes: int) -> None:
    async with running_vendor() as vendor:
        tracemalloc.start()
        async with vendor.client() as client:
            headers = {"authorization": f"Bearer {vendor.secret}", "content-type": "application/json"}
            refused = await client.post(path, content=body, headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert refused.status_code in (400, 422), refused.text
        assert len(refused.text) < 2000
        assert peak < mebibytes * MEBIBYTE
        assert not vendor.ledger.posted


async def test_small_files_that_decode_to_more_than_has_room_are_refused_undecoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All requests find room for one image before their bodies are read, and only some of them for all of theirs."""
    most = 0
    decode = PillowImageDecoder.decode

    def watched(self: PillowImageDecoder, data: bytes, small_pixels: int | None = None) -> PreparedItem:
        time.sleep(0.05)
        return decode(self, data, small_pixels)

    async with running_vendor() as vendor:
        monkeypatch.setattr(PillowImageDecoder, "decode", watched)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, vendor.services.lanes.reserved_items["image"])
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        bodies = [json.dumps(images(*[png("red", (9, 8 * n + k)) for k in range(1, 9)])) for n in range(6)]
        async with vendor.client() as client:
            kind = {"content-type": "application/json"}
            answers = await asyncio.gather(*(client.post(IMAGES, content=body, headers=kind) for body in bodies))
        watching.cancel()
        assert sorted(answer.status_code for answer in answers) == [200, 503, 503, 503, 503, 503]
        assert most <= 8  # half of what may wait
