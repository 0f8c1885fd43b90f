"""Items before they are sold: raw pixels and files become the same item, each bad one its own failure."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.vendor.serving_shop import LIMITS, noise, save
from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.engine.models.tokenizer import WordTokenizer
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import Preprocessing
from vl2v_vendor.observe.request_trace import start_trace
from vl2v_vendor.service.decode_turns import DecodeTurns
from vl2v_vendor.service.preparation import ItemSource, Preparation

pytestmark = pytest.mark.anyio

SIZE = 32


@pytest.fixture
def preparation() -> Iterator[Preparation]:
    decoder = PillowImageDecoder(Preprocessing(SIZE), max_item_bytes=LIMITS.max_item_bytes, max_pixels=1_000_000)
    with ThreadPoolExecutor(2) as executor:
        yield Preparation(decoder, WordTokenizer(), LIMITS, DecodeTurns(executor, 2))


async def prepare(preparation: Preparation, *sources: ItemSource) -> list[PreparedItem | ItemFailure]:
    return await preparation.prepare("image", sources, key="a")


async def test_raw_pixels_are_the_same_item_as_their_png(preparation: Preparation) -> None:
    image = noise(SIZE, SIZE)
    body = memoryview(b"head" + image.tobytes())
    raw, file = await prepare(preparation, memoryview(body[4:]), save(image, "PNG"))
    assert isinstance(raw, PreparedItem)
    assert isinstance(file, PreparedItem)
    assert raw.content_sha == file.content_sha
    np.testing.assert_array_equal(raw.model_input, file.model_input)
    assert raw.model_input.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("length", [0, 1, SIZE * SIZE * 3 - 1, SIZE * SIZE * 3 + 1, 224 * 224 * 3])
async def test_raw_pixels_of_another_size_fail_alone(preparation: Preparation, length: int) -> None:
    bad, good = await prepare(preparation, memoryview(bytes(length)), memoryview(bytes(SIZE * SIZE * 3)))
    assert isinstance(bad, ItemFailure)
    assert bad.code == "undecodable_image"
    assert f"{length:,} bytes" in bad.detail
    assert "3,072" in bad.detail
    assert isinstance(good, PreparedItem)


async def test_decoding_is_a_stage_of_the_request(preparation: Preparation) -> None:
    clock = start_trace()
    await preparation.prepare("image", [save(noise(40, 40), "PNG"), b"broken"], key="a")
    await preparation.prepare("text", ["a", ""], key="a")
    assert list(clock.stages) == ["decode"]


class GatedDecoder:
    """Decodes one image per `release`, in the order that the pool asks for; fails at an image named `fault`."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self._gate = threading.Semaphore(0)

    def release(self, count: int) -> None:
        self._gate.release(count)

    def decode(self, data: bytes, small_pixels: int | None = None) -> PreparedItem:
        self._gate.acquire()
        self.order.append(data)
        if data == b"fault":
            raise RuntimeError("injected")
        return PreparedItem(np.zeros((1, 1, 3), dtype=np.uint8), data.decode())

    def from_rgb8(self, data: bytes | memoryview) -> PreparedItem:
        raise NotImplementedError


@pytest.fixture
def gated() -> Iterator[tuple[GatedDecoder, Preparation]]:
    decoder = GatedDecoder()
    with ThreadPoolExecutor(1) as executor:
        yield decoder, Preparation(decoder, WordTokenizer(), LIMITS, DecodeTurns(executor, 1), in_flight=2)
        decoder.release(100)


async def test_a_small_request_does_not_wait_for_a_large_one(gated: tuple[GatedDecoder, Preparation]) -> None:
    decoder, preparation = gated

    large = asyncio.create_task(preparation.prepare("image", [b"large %d" % number for number in range(8)], key="a"))
    await asyncio.sleep(0)
    small = asyncio.create_task(preparation.prepare("image", [b"small"], key="a"))
    await asyncio.sleep(0)
    decoder.release(9)
    await asyncio.gather(large, small)
    assert [item.content_sha for item in large.result() if isinstance(item, PreparedItem)] == [
        f"large {number}" for number in range(8)
    ]
    assert decoder.order.index(b"small") <= 3


async def test_what_a_vanished_client_sent_is_not_decoded(gated: tuple[GatedDecoder, Preparation]) -> None:
    decoder, preparation = gated

    request = asyncio.create_task(preparation.prepare("image", [b"gone %d" % number for number in range(8)], key="a"))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    decoder.release(2)
    await preparation.prepare("image", [b"next"], key="a")
    assert decoder.order[-1] == b"next"
    assert len(decoder.order) <= 2  # at most the one that the thread had begun


async def test_a_librarys_fault_is_one_items_failure(
    gated: tuple[GatedDecoder, Preparation], caplog: pytest.LogCaptureFixture
) -> None:
    decoder, preparation = gated
    decoder.release(3)
    with caplog.at_level(logging.ERROR):
        before, faulty, after = await prepare(preparation, b"a", b"fault", b"b")
    assert isinstance(before, PreparedItem)
    assert isinstance(after, PreparedItem)
    assert isinstance(faulty, ItemFailure)
    assert faulty.code == "encoding_failed"
    assert "injected" in caplog.text
