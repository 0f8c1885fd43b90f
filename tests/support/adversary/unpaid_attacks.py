"""Attacks under a key whose account has a budget of 0: bodies that do not end, and work that nobody has paid for."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import secrets

from http_target import multipart
from pictures import photo_jpeg
from PIL import Image

from support.adversary.door import Door, items

IMAGES, TEXTS, REPLAY = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings/replay"
LARGEST_BODY = 64 * 1024 * 1024
ITEMS = 256
_PICTURE_SIDE = 7000
"""49 megapixels."""
_ENTITY_DEPTH = 2000


async def unfinished_bodies(door: Door) -> None:
    """All of 64 MiB but the last byte."""
    door.count, door.per_second = min(door.count, 8), 4
    body = bytes(LARGEST_BODY - 1)
    head = door.head(IMAGES, LARGEST_BODY)
    await door.crowd(lambda number: door.until_closed(number, head + body))


async def dripping_bodies(door: Door) -> None:
    door.count = min(door.count, 64)
    head = door.head(TEXTS, 1000)

    async def drip(number: int) -> str:
        reader, writer = await door.connect(number)
        answer = asyncio.ensure_future(reader.read())
        try:
            writer.write(head)
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait([answer], timeout=0.5)
            return "closed" if not (got := answer.result()) else got[9:12].decode()
        finally:
            answer.cancel()
            writer.transport.abort()

    await door.crowd(drip)


async def endless_chunks(door: Door) -> None:
    """Bodies that say nothing of their length and have no end."""
    door.count, door.per_second = min(door.count, 8), 4
    head = door.head(IMAGES, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"

    async def pour(number: int) -> str:
        reader, writer = await door.connect(number)
        answer = asyncio.ensure_future(reader.read())
        try:
            writer.write(head)
            while not answer.done():
                writer.write(chunk)
                await asyncio.wait([answer, asyncio.ensure_future(writer.drain())], timeout=0.2)
            return "closed" if not (got := answer.result()) else got[9:12].decode()
        finally:
            answer.cancel()
            writer.transport.abort()

    await door.crowd(pour)


async def large_pictures(door: Door) -> None:
    """One request at a time of 256 lossless WebPs of 49 megapixels."""
    await _repeat(door, 1, [_upload(door, [_large_webp()] * ITEMS)])


async def large_pictures_at_once(door: Door) -> None:
    """Eight such at once."""
    await _repeat(door, 8, [_upload(door, [_large_webp()] * ITEMS)])


async def nested_entities(door: Door) -> None:
    nested = "&" + "amp;" * _ENTITY_DEPTH + "lt;"
    await _repeat(door, 8, [door.post(TEXTS, items([{"text": nested}] * ITEMS))])


async def malformed_items(door: Door) -> None:
    """Items of every kind that cannot be read: at this budget the answer is 402, whatever they are."""
    files = [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(64), _tiff()] * (ITEMS // 4)
    texts = [{"text": text} for text in ("", "http://example.com/a.jpg", "very " * 200, "\u0000")] * (ITEMS // 4)
    in_json = [{"image": "@@@@"}, {"image": base64.b64encode(b"no picture").decode()}] * (ITEMS // 2)
    requests = [_upload(door, files), door.post(TEXTS, items(texts)), door.post(IMAGES, items(in_json))]
    await _repeat(door, 8, requests)


async def half_sent_pictures(door: Door) -> None:
    whole = [photo_jpeg(seed) for seed in range(8)]
    cut = [file[: len(file) * share // 100] + b"\xff\xd9" for file in whole for share in (5, 50)]
    await _repeat(door, 8, [_upload(door, cut * (ITEMS // len(cut)))])


async def full_bodies(door: Door) -> None:
    """Bodies as large, and JSON of as many values, as are read at all."""
    picture = base64.b64encode(secrets.token_bytes(1024 * 1024)).decode()
    large = items([{"image": picture}] * (LARGEST_BODY // (len(picture) + 100)))
    values = b'{"items":[%s]}' % b",".join([b'{"text":""}'] * 9_999)
    keys = json.dumps({"items": [{"text": "a", "item_key": "0" * 64}] * 9_999}).encode()
    await _repeat(door, 8, [door.post(IMAGES, large), door.post(TEXTS, values), door.post(TEXTS, keys)])


async def unknown_replays(door: Door) -> None:
    """What is free to ask for: paid vectors, of which this account has none."""
    wanted = json.dumps({"item_keys": [secrets.token_hex(32) for _ in range(ITEMS)]}).encode()
    await _repeat(door, 8, [door.post(REPLAY, wanted)])


async def _repeat(door: Door, clients: int, requests: list[bytes]) -> None:
    """Send these in turn on connections that stay open, each as soon as the one before is answered."""
    door.count, door.per_second = clients, 50
    turns = itertools.cycle(requests)
    streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def send(number: int) -> str:
        if number not in streams:
            streams[number] = await door.connect(number)
        try:
            return await door.ask(streams[number], next(turns))
        except (OSError, EOFError):
            streams.pop(number)[1].transport.abort()
            raise

    await door.crowd(send)


def _upload(door: Door, files: list[bytes]) -> bytes:
    return door.post(IMAGES, *multipart(files))


def _large_webp() -> bytes:
    """About 2 kB."""
    file = io.BytesIO()
    Image.new("RGB", (_PICTURE_SIDE, _PICTURE_SIDE), "teal").save(file, "WEBP", lossless=True, quality=0, method=0)
    return file.getvalue()


def _tiff() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "TIFF")
    return file.getvalue()
