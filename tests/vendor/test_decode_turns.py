"""Whose item is decoded next: keys take turns by pixels, and large images leave others a thread and memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from support.vendor.serving_shop import images, png, png_bomb, running_vendor
from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.service.decode_turns import BYTES_PER_PIXEL, SMALL_PIXELS, DecodeTurns

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
LARGE = 20_000_000


class Gate:
    """Work that notes that it has begun, and ends when the gate is opened for it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended = 0
        self._tickets = threading.Semaphore(0)

    def work(self, name: str) -> Callable[[], PreparedItem]:
        def decode() -> PreparedItem:
            self.begun.append(name)
            self._tickets.acquire()
            self.ended += 1
            return PreparedItem(np.zeros((1, 1, 3), dtype=np.uint8), name)

        return decode

    def open(self, count: int) -> None:
        self._tickets.release(count)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # so that one too many would show


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open(1000)


@pytest.fixture
def pool(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool
        gate.open(1000)


def queue(turns: DecodeTurns, gate: Gate, key: str, pixels: int, count: int) -> list[asyncio.Task[PreparedItem]]:
    return [asyncio.create_task(turns.run(key, pixels, gate.work(f"{key}{number}"))) for number in range(count)]


async def test_large_images_of_one_customer_do_not_stop_another(monkeypatch: pytest.MonkeyPatch) -> None:
    shut = threading.Event()
    render = PillowImageDecoder._render

    def slow(self: PillowImageDecoder, image: Any, data: bytes) -> PreparedItem:
        if image.width * image.height > SMALL_PIXELS:
            shut.wait()
        return render(self, image, data)

    monkeypatch.setattr(PillowImageDecoder, "_render", slow)
    large = png_bomb(2500, 2000)
    async with running_vendor() as vendor:
        other = vendor.ledger.issue_key(account_id="acct_other")
        async with vendor.client() as client, vendor.client(other) as another:
            flood = [asyncio.create_task(client.post(IMAGES, json=images(*[large] * 4))) for _ in range(2)]
            await asyncio.sleep(0.2)
            try:
                answer = await asyncio.wait_for(another.post(IMAGES, json=images(png())), timeout=10)
                assert answer.status_code == 200
                assert not any(task.done() for task in flood)
            finally:
                shut.set()
            assert [answer.status_code for answer in await asyncio.gather(*flood)] == [200] * 2


async def test_the_memory_of_large_images_is_bounded(pool: ThreadPoolExecutor, gate: Gate) -> None:
    turns = DecodeTurns(pool, 8, max_large_bytes=3 * BYTES_PER_PIXEL * LARGE)
    tasks = [task for key in "abcd" for task in queue(turns, gate, key, LARGE, 2)]
    await gate.until_begun(3)
    for done in range(1, 9):
        assert len(gate.begun) - gate.ended <= 3
        gate.open(1)
        await gate.until_begun(min(8, 3 + done))
    await asyncio.gather(*tasks)


async def test_one_that_needs_more_than_all_the_memory_is_decoded_alone(pool: ThreadPoolExecutor, gate: Gate) -> None:
    turns = DecodeTurns(pool, 8, max_large_bytes=BYTES_PER_PIXEL * LARGE)
    first = queue(turns, gate, "a", LARGE, 1)
    await gate.until_begun(1)
    largest = queue(turns, gate, "b", 2 * LARGE, 1)
    await asyncio.sleep(0)
    last = queue(turns, gate, "c", LARGE, 1)  # waits behind it, or it might wait for ever
    for count in (1, 2, 3):
        await gate.until_begun(count)
        assert len(gate.begun) == count
        gate.open(1)
    await asyncio.gather(*first, *largest, *last)
    assert gate.begun == ["a0", "b0", "c0"]


async def test_keys_take_turns_by_their_pixels(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        turns = DecodeTurns(pool, 1)
        tasks = [*queue(turns, gate, "a", 1_000_000, 6), *queue(turns, gate, "b", 250_000, 6)]
        for count in range(1, 13):
            await gate.until_begun(count)
            gate.open(1)
        await asyncio.gather(*tasks)
    assert "".join(name[0] for name in gate.begun) == "aabbbbabbaaa"  # two lay in the pool before the other came


async def test_what_turns_out_small_costs_its_key_little(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        turns = DecodeTurns(pool, 1)
        running = queue(turns, gate, "x", 1, 2)  # both places of the pool
        await gate.until_begun(1)
        tasks = [*queue(turns, gate, "a", SMALL_PIXELS, 4), *queue(turns, gate, "b", SMALL_PIXELS, 4)]
        for count in range(1, 11):
            await gate.until_begun(count)
            if gate.begun[-1].startswith("a"):
                turns.give_back("a", SMALL_PIXELS - 1)
            gate.open(1)
        await asyncio.gather(*running, *tasks)
    assert gate.begun.index("a3") < gate.begun.index("b2")


async def test_a_thread_is_taken_until_it_is_done_though_its_client_has_left(gate: Gate) -> None:
    with ThreadPoolExecutor(2) as pool:
        turns = DecodeTurns(pool, 2)
        gone = queue(turns, gate, "a", LARGE, 3)
        await gate.until_begun(1)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        later = queue(turns, gate, "b", LARGE, 1)
        await asyncio.sleep(0.02)
        assert gate.begun == ["a0"]
        gate.open(1)
        await gate.until_begun(2)
        assert gate.begun == ["a0", "b0"]  # what had not begun was forgotten
        gate.open(1)
        await asyncio.gather(*later)


async def test_a_fault_is_its_own_items(gate: Gate) -> None:
    def fail() -> PreparedItem:
        raise ValueError("injected")

    with ThreadPoolExecutor(1) as pool:
        turns = DecodeTurns(pool, 1)
        gate.open(1)
        results = await asyncio.gather(
            turns.run("a", 1, fail), turns.run("a", 1, gate.work("next")), return_exceptions=True
        )
    assert isinstance(results[0], ValueError)
    assert isinstance(results[1], PreparedItem)


async def test_what_lies_ready_for_a_client_that_has_left_is_not_decoded(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        turns = DecodeTurns(pool, 1)
        first = queue(turns, gate, "a", 1, 1)
        await gate.until_begun(1)
        gone = queue(turns, gate, "b", 1, 2)  # one in the pool, one in its line
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        last = queue(turns, gate, "a", 1, 1)
        gate.open(2)
        await asyncio.gather(*first, *last)
    assert gate.begun == ["a0", "a0"]


async def test_nothing_is_kept_of_keys_whose_items_are_done(gate: Gate, pool: ThreadPoolExecutor) -> None:
    turns = DecodeTurns(pool, 2)
    gate.open(6)
    await asyncio.gather(*(task for key in "abc" for task in queue(turns, gate, key, 1, 2)))
    assert turns._lines == {}
