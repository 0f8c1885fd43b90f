"""Two hundred clients queue and vanish: the model never sees their items, nobody pays, the next client is served."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from http_target import Answer, Connection, ConnectionLost, Target, multipart
from load_generator import close_after
from pictures import photo_jpeg

from support.adversary.poison import IMAGES_PATH
from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import OpenVendor, ProofVendor, Size

BLOCKERS = 8
"""One batch: it keeps the model busy, and nobody but those who leave waits behind it."""
IN_THE_MODEL_SECONDS = 0.15
"""After which the blockers are decoded and in the model, which stands still: no model is too fast for this proof."""
LEAVERS_SIZE = (64, 48)
"""Small photos: all that leave must be queued while the model stands still."""
LONGEST_STOP_SECONDS = 1.6
"""A model process that stands still for two seconds is taken for stuck, and replaced."""
MOST_SHARE = 0.05
LANE = '{lane="image"}'


@dataclass(frozen=True)
class Ending:
    """What became of the three parties.

    Attributes:
        queued: requests that waited when their clients left.
        blocked: the answer to who kept the model busy.
        next_answer: the answer to the first client afterwards.
    """

    queued: float
    blocked: Answer
    next_answer: Answer


@pytest.mark.timeout(300)
def test_who_vanishes_costs_nothing(
    open_vendor: OpenVendor, photos: list[bytes], size: Size, prove: Prove, prove_speed: Prove
) -> None:
    leaving = int(size("VANISHING", 40, 200))
    with open_vendor(MAX_BATCH_ITEMS=BLOCKERS) as vendor:
        blocker, gone, following = (vendor.customer(name) for name in ("blocker", "gone", "next"))
        targets = [customer.target() for customer in (blocker, gone, following)]
        asyncio.run(close_after(_keep_busy(targets[0], photos), *targets))
        calm = vendor.metrics()
        asyncio.run(close_after(_keep_busy(targets[0], photos), *targets))
        before = vendor.metrics()
        ending = asyncio.run(close_after(_vanish(vendor, targets, photos, leaving), *targets))
        after = vendor.metrics()
        billed, next_billed = gone.used_units(), following.used_units()
    seen = _grown(before, after, "vl2v_batch_items_sum") - BLOCKERS - 1
    batch_seconds = _grown(calm, before, "vl2v_batch_seconds_sum") / _grown(calm, before, "vl2v_batch_seconds_count")
    queued, least = ending.queued, leaving - BLOCKERS
    name = f"requests queued when their clients left, beside a batch of {BLOCKERS} that is ready"
    prove(name, queued, goal=f">= {least}", met=queued >= least)
    statuses = (ending.blocked.status, ending.next_answer.status)
    prove("answers to the others", str(statuses), goal="(200, 200)", met=statuses == (200, 200))
    prove(
        f"items of {leaving} that reached the model",
        seen,
        goal=f"<= {MOST_SHARE * leaving:g}",
        met=seen <= MOST_SHARE * leaving,
    )
    prove("units billed to those who left", billed, goal="0", met=billed == 0)
    prove("units billed to the next client", next_billed, goal="1", met=next_billed == 1)
    batches = round(ending.next_answer.seconds / batch_seconds, 2)
    name = f"the next client's wait, in batches of {1000 * batch_seconds:.0f} ms"
    prove_speed(name, batches, goal="<= 2", met=batches <= 2)


async def _keep_busy(target: Target, photos: list[bytes]) -> Answer:
    """Ask for a batch."""
    supply = [photos[number % len(photos)] for number in range(BLOCKERS)]
    answer = await target.ask(target.request(IMAGES_PATH, *multipart(supply)))
    assert answer.status == 200, answer.body
    return answer


async def _vanish(vendor: ProofVendor, targets: list[Target], photos: list[bytes], leaving: int) -> Ending:
    """Stop the model, give it a batch, let requests queue behind it and their clients go, then let it run on."""
    blocker, gone, following = targets
    small = [multipart([photo_jpeg(seed, LEAVERS_SIZE)]) for seed in range(8)]
    requests = [gone.request(IMAGES_PATH, *small[number % len(small)]) for number in range(leaving)]
    connections = [await gone.connect() for _ in requests]
    vendor.signal_model(signal.SIGSTOP)
    try:
        blocked = asyncio.create_task(_keep_busy(blocker, photos))
        await asyncio.sleep(IN_THE_MODEL_SECONDS)
        base = await asyncio.to_thread(_depth, vendor)
        waiting = [
            asyncio.create_task(_ask(connection, request))
            for connection, request in zip(connections, requests, strict=True)
        ]
        queued = await _until(
            lambda: asyncio.to_thread(_depth, vendor),
            at_least=base + leaving - BLOCKERS,
            within_seconds=LONGEST_STOP_SECONDS - IN_THE_MODEL_SECONDS - 0.3,
        )
        for connection in connections:
            connection.abort()
        await asyncio.gather(*waiting)
        await asyncio.sleep(0.1)  # the server hears of their ends
    finally:
        vendor.signal_model(signal.SIGCONT)
    next_answer = await following.ask(following.request(IMAGES_PATH, *multipart(photos[:1])))
    return Ending(queued - base, await blocked, next_answer)


async def _ask(connection: Connection, request: bytes) -> None:
    with suppress(ConnectionLost):
        await connection.ask(request)


async def _until(depth: Callable[[], Awaitable[float]], *, at_least: float, within_seconds: float = 30.0) -> float:
    """Wait until so many items are queued, or the time is over; how many there are."""
    end = time.monotonic() + within_seconds
    while (found := await depth()) < at_least and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return found


def _depth(vendor: ProofVendor) -> float:
    return vendor.metrics().get(f"vl2v_queue_depth{LANE}", 0.0)


def _grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after[name + LANE] - before.get(name + LANE, 0.0)
