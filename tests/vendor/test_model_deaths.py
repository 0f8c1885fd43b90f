"""A model process that dies or hangs under load: readiness turns red, nobody waits in vain, service comes back."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import numpy as np
import pytest

from support.vendor.moody_models import (
    COMPUTE_LONG,
    SLEEP_FOR_EVER,
    MoodyModel,
    UnitModel,
    direction,
    grey,
    say_how_threads_wait,
)
from support.waiting import until
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable
from vl2v_vendor.engine.process.model_process import ProcessEncoder
from vl2v_vendor.engine.process.model_worker import LoadModel
from vl2v_vendor.engine.queue.lanes import EncodingLanes

pytestmark = pytest.mark.anyio

STUCK_SECONDS = 1.2
SLACK_SECONDS = 1.5
"""Two looks of the watchdog, and a machine that has other things to do."""


@asynccontextmanager
async def open_encoder(load: LoadModel = MoodyModel, **options: object) -> AsyncIterator[ProcessEncoder]:
    chosen = {"first_delay_seconds": 0.01, "stuck_seconds": STUCK_SECONDS, "max_batch_items": 8, **options}
    encoder = ProcessEncoder(load, **chosen)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(100):
            await encoder.start()
            yield encoder
    finally:
        await encoder.close()


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


class Load:
    """Clients that ask for one image after the other, and check what they get."""

    def __init__(self, lanes: EncodingLanes, clients: int = 20) -> None:
        self._lanes = lanes
        self.answers = self.refusals = 0
        self.longest_seconds = 0.0
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(clients)]

    async def _ask(self, number: int) -> None:
        while True:
            started = time.monotonic()
            try:
                vectors = await self._lanes.encode("image", [grey(number)], key=str(number))
            except ModelUnavailable:
                self.refusals += 1
                await asyncio.sleep(0.02)
            else:
                np.testing.assert_allclose(vectors[0][:2], direction(np.array([float(number)]))[0], atol=1e-6)
                self.answers += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


@pytest.mark.parametrize(("number", "limit_seconds"), [(signal.SIGKILL, 0.0), (signal.SIGSTOP, STUCK_SECONDS)])
async def test_killed_or_stopped_under_load_it_is_noticed_in_time_and_comes_back(
    number: int, limit_seconds: float
) -> None:
    async with open_encoder(partial(UnitModel, 0.01)) as encoder:
        lanes = EncodingLanes(encoder, max_batch_items=encoder.batch_items, max_queued_items=100)
        lanes.start()
        load = Load(lanes)
        await until(lambda: load.answers > 50)
        dead = encoder.process_id
        assert dead is not None
        os.kill(dead, number)
        assert await until(lambda: not encoder.ready) < limit_seconds + SLACK_SECONDS
        await until(lambda: load.refusals >= 20)
        assert load.longest_seconds < limit_seconds + SLACK_SECONDS
        await until(lambda: encoder.ready)
        before = load.answers
        await until(lambda: load.answers > before + 50)
        assert encoder.restarts == 1
        assert encoder.process_id != dead
        assert not is_running(dead)
        await load.end()
        await lanes.close()


async def test_an_idle_process_that_is_stopped_is_noticed_too() -> None:
    async with open_encoder() as encoder:
        assert encoder.process_id is not None
        os.kill(encoder.process_id, signal.SIGSTOP)
        assert await until(lambda: not encoder.ready) < STUCK_SECONDS + SLACK_SECONDS
        await until(lambda: encoder.ready)
        await encoder.encode_images([grey(3)])


async def test_a_batch_that_never_ends_costs_only_those_who_wait_with_it() -> None:
    async with open_encoder() as encoder:
        started = time.monotonic()
        waiters = [encoder.encode_images([grey(level)]) for level in (SLEEP_FOR_EVER, 3, 4)]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes)
        assert time.monotonic() - started < STUCK_SECONDS + SLACK_SECONDS
        await until(lambda: encoder.ready)
        vectors = await encoder.encode_images([grey(3), grey(4)])
        np.testing.assert_allclose(vectors[:, :2], direction(np.array([3.0, 4.0])), atol=1e-6)


async def test_a_process_that_computes_longer_than_the_limit_is_let_finish() -> None:
    async with open_encoder() as encoder:
        started = time.monotonic()
        await encoder.encode_images([grey(COMPUTE_LONG)])
        assert time.monotonic() - started > STUCK_SECONDS
        assert encoder.restarts == 0


async def test_a_batch_that_is_cancelled_before_it_began_is_not_computed() -> None:
    async with open_encoder(partial(MoodyModel, 0.2)) as encoder:
        before = (await encoder.encode_images([grey(1)]))[0, 3]
        running = asyncio.create_task(encoder.encode_images([grey(2)]))
        ready = asyncio.create_task(encoder.encode_images([grey(3)]))
        waiting = asyncio.create_task(encoder.encode_images([grey(4)]))
        await asyncio.sleep(0.05)
        ready.cancel()
        assert (await running)[0, 3] == before + 1
        assert (await waiting)[0, 3] == before + 2


@pytest.mark.parametrize("level", [3, SLEEP_FOR_EVER])
async def test_a_process_is_stopped_within_a_second_whatever_it_does(level: int) -> None:
    async with open_encoder() as encoder:
        await encoder.encode_images([grey(3)])
        busy = asyncio.create_task(encoder.encode_images([grey(level)]))
        await asyncio.sleep(0.1)
        process_id = encoder.process_id
        assert process_id is not None
        started = time.monotonic()
        await encoder.close()
        assert time.monotonic() - started < 1
        assert not is_running(process_id)
        await asyncio.gather(busy, return_exceptions=True)


async def test_what_does_not_fit_is_refused_and_the_process_goes_on() -> None:
    async with open_encoder() as encoder:
        with pytest.raises(EncodingFailed, match="does not fit"):
            await encoder.encode_images([grey(1)] * 20_000)
        with pytest.raises(EncodingFailed, match="2 x 2 pixels"):
            await encoder.encode_images([np.zeros((3, 2, 3), dtype=np.uint8)])
        for _ in range(2):  # both slots are full of this when the shorter texts come
            await encoder.encode_tokens([np.full(77, 9)] * 8)
        texts = [np.arange(1, length) for length in (3, 78, 40)]
        vectors = await encoder.encode_tokens(texts)
        np.testing.assert_allclose(vectors[:, :2], direction(np.array([3.0, 3003.0, 780.0])), atol=1e-6)
        assert encoder.restarts == 0


async def test_loading_has_a_limit_of_its_own() -> None:
    with pytest.raises(ModelLoadFailed, match="max_load_seconds"):
        async with open_encoder(partial(MoodyModel, load_seconds=3600), load_seconds=0.5):
            raise AssertionError("it was loaded")


@pytest.mark.parametrize(
    ("chosen", "found"),
    [({}, "None 20000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "7"}, "None 7")],
)
async def test_torchs_threads_spin_briefly_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], found: str
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelLoadFailed, match=f"{found}, torch False"):
        async with open_encoder(say_how_threads_wait):
            raise AssertionError("it was loaded")


async def test_the_batch_sizes_are_measured_once_and_no_descriptor_is_lost_by_a_restart() -> None:
    async with open_encoder(max_batch_items=None) as encoder:
        sizes = dict(encoder.batch_items)
        assert min(sizes.values()) >= 1
        await encoder.encode_images([grey(1)])
        before = len(os.listdir("/proc/self/fd"))
        for restart in range(1, 3):
            assert encoder.process_id is not None
            os.kill(encoder.process_id, signal.SIGKILL)
            await until(lambda restart=restart: encoder.ready and encoder.restarts == restart)
            await encoder.encode_images([grey(1)])
        assert dict(encoder.batch_items) == sizes
        assert len(os.listdir("/proc/self/fd")) <= before


def shared_memory() -> list[str]:
    """Descriptors of shared memory that this process holds."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in found if "vl2v-batches" in name]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux tells them")
async def test_the_memory_shared_with_a_dead_process_is_unmapped_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with open_encoder() as encoder:
            before = len(shared_memory())
            waiters = [asyncio.create_task(encoder.encode_images([grey(level)])) for level in (SLEEP_FOR_EVER, 3, 4)]
            await asyncio.sleep(0.1)
            assert encoder.process_id is not None
            os.kill(encoder.process_id, signal.SIGKILL)
            outcomes = await asyncio.gather(*waiters, return_exceptions=True)
            assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes)
            await until(lambda: encoder.ready and encoder.restarts == 1)
            await encoder.encode_images([grey(1)])
            assert len(shared_memory()) == before == 1
    finally:
        gc.enable()
