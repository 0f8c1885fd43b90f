"""Both lanes over one model: nobody starves, nobody vanishes into the model, and only directions are sold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.waiting import until
from vl2v_vendor.domain.encoder import VectorBatch
from vl2v_vendor.domain.errors import ItemFailure, Overloaded
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.queue.lanes import EncodingLanes, largest_input_bytes

pytestmark = pytest.mark.anyio

PIXELS = np.zeros((32, 32, 3), dtype=np.uint8)
TOKENS = np.array([1, 5, 49407])


@dataclass(frozen=True, slots=True)
class CountingEncoder(HashEncoder):
    """Counts what reaches the model, and holds it until the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    order: list[tuple[str, int]] = field(default_factory=list)
    model: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[str] = field(default_factory=list)

    async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
        return await self._encode("image", HashEncoder.encode_images(self, images), len(images))

    async def encode_tokens(self, texts: Sequence[NDArray[np.int64]]) -> VectorBatch:
        return await self._encode("text", HashEncoder.encode_tokens(self, texts), len(texts))

    async def _encode(self, lane: str, work: Awaitable[VectorBatch], items: int) -> VectorBatch:
        vectors = await work
        self.waiting.append(lane)
        async with self.model:
            await self.gate.wait()
            self.order.append((lane, items))
            await asyncio.sleep(0)
            return vectors

    def seen(self, lane: str) -> int:
        return sum(items for name, items in self.order if name == lane)


@asynccontextmanager
async def open_lanes(**options: Any) -> AsyncIterator[tuple[EncodingLanes, CountingEncoder]]:
    encoder = CountingEncoder()
    lanes = EncodingLanes(encoder, **{"max_batch_items": 8, "max_queued_items": 10_000, **options})
    lanes.start()
    try:
        async with asyncio.timeout(20):
            yield lanes, encoder
    finally:
        await lanes.close()


def pixels(level: int) -> NDArray[np.uint8]:
    return np.full((32, 32, 3), level, dtype=np.uint8)


async def test_each_input_gets_its_own_vector_and_the_batches_are_observed() -> None:
    async with open_lanes() as (lanes, encoder):
        encoder.gate.set()
        seen: list[tuple[str, int, bool]] = []
        lanes.observe_batches(lambda lane, items, seconds: seen.append((lane, items, seconds >= 0)))
        inputs = [pixels(level) for level in range(9)]
        vectors = await lanes.encode("image", inputs)
        texts = await lanes.encode("text", [TOKENS, TOKENS[1:]])
        np.testing.assert_array_equal(np.stack(vectors), await HashEncoder().encode_images(inputs))
        np.testing.assert_array_equal(np.stack(texts), await HashEncoder().encode_tokens([TOKENS, TOKENS[1:]]))
        await asyncio.sleep(0.01)
        assert seen == [("image", 8, True), ("image", 1, True), ("text", 2, True)]
        assert await lanes.encode("image", []) == []


async def test_a_single_image_and_a_single_text_pass_a_flood_of_images() -> None:
    async with open_lanes() as (lanes, encoder):
        flood = asyncio.create_task(lanes.encode("image", [PIXELS] * 4000, key="flood"))
        await until(lambda: lanes.queued_items["image"] == 3984)  # one batch runs, one is ready
        singles = [
            asyncio.create_task(lanes.encode("image", [PIXELS], key="other")),
            asyncio.create_task(lanes.encode("text", [TOKENS], key="other")),
        ]
        await until(lambda: lanes.queued_items["text"] == 1)
        encoder.gate.set()
        await asyncio.gather(*singles)
        assert len(encoder.order) <= 6
        assert ("text", 1) in encoder.order[:4]
        flood.cancel()


async def test_what_200_vanished_clients_queued_never_reaches_the_model() -> None:
    async with open_lanes() as (lanes, encoder):
        first = asyncio.create_task(lanes.encode("image", [PIXELS], key="first"))
        await asyncio.sleep(0.01)
        clients = [asyncio.create_task(lanes.encode("image", [PIXELS], key=str(n % 7))) for n in range(200)]
        await until(lambda: lanes.queued_items["image"] == 192)
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)
        assert (lanes.queued_items["image"], lanes.queued_bytes["image"]) == (0, 0)
        last = asyncio.create_task(lanes.encode("image", [PIXELS], key="last"))
        await asyncio.sleep(0.01)
        encoder.gate.set()
        await asyncio.gather(first, last)
        assert encoder.seen("image") == 2


async def test_room_is_checked_before_a_body_is_read_and_kept_while_items_are_prepared() -> None:
    image_bytes = largest_input_bytes(HashEncoder().info)["image"]

    async with open_lanes(max_queued_items=30, max_queued_bytes=20 * image_bytes) as (lanes, encoder):
        with lanes["text"].reserve(20, key=""), lanes["image"].reserve(15, key=""):
            lanes["image"].check_room(1)
            with lanes["image"].reserve(5, key="other"):
                assert lanes.reserved_items == {"image": 20, "text": 20}
                with pytest.raises(Overloaded) as refusal:
                    lanes["image"].check_room(1)
                assert refusal.value.retry_after_seconds >= 1
        in_model = asyncio.create_task(lanes.encode("image", [PIXELS] * 16))
        await until(lambda: len(encoder.waiting) == 2)
        waiting = asyncio.create_task(lanes.encode("image", [PIXELS] * 12))
        await until(lambda: lanes.queued_items["image"] == 12)
        assert lanes.queued_bytes["image"] == 12 * image_bytes
        lanes["image"].check_room(1)
        with lanes["text"].reserve(20, key=""), lanes["image"].reserve(8, key="other"), pytest.raises(Overloaded):
            lanes["image"].check_room(1)
        with pytest.raises(Overloaded), lanes["image"].reserve(9, key="other"):
            pass
        in_model.cancel()
        waiting.cancel()


async def test_only_finite_unit_vectors_of_the_right_width_are_sold() -> None:
    good = np.eye(64, dtype=np.float32)[0]
    bad = [np.full(64, np.nan, np.float32), np.zeros(64, np.float32), 2 * good, np.full(64, np.inf, np.float32)]

    class Faulty(HashEncoder):
        async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
            rows = [good, *bad]
            return np.stack([rows[int(image[0, 0, 0])] for image in images])

        async def encode_tokens(self, texts: Sequence[NDArray[np.int64]]) -> VectorBatch:
            return np.ones((len(texts), 1), dtype=np.float32)

    lanes = EncodingLanes(Faulty(), max_batch_items=8, max_queued_items=100)
    lanes.start()
    vectors = await lanes.encode("image", [pixels(level) for level in range(5)])
    np.testing.assert_array_equal(vectors[0], good)
    assert all(isinstance(vector, ItemFailure) for vector in vectors[1:])
    narrow = await lanes.encode("text", [TOKENS])
    assert isinstance(narrow[0], ItemFailure)
    await lanes.close()
