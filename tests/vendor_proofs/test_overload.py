"""Four times as many requests as the vendor can serve: it serves what it can, and refuses the rest at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import pytest
from http_target import Answer, Target, multipart
from load_generator import Arrival, answers_of, close_after, hammer, open_loop

from support.adversary.poison import IMAGES_PATH
from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import OpenVendor, ProofVendor, Size

FACTOR = 4
ITEMS = 8
"""In a batch, and waiting: a vendor that is to be free again within two seconds must not promise more."""
CLIENTS = 16
"""Enough to keep two batches full, few enough never to be refused: by them the capacity is measured."""
PATIENCE_SECONDS = 90.0
PROBE_PAUSE_SECONDS = 0.05
MEBIBYTE = 1024 * 1024


@dataclass
class Story:
    """What one flood brought. Capacities are in images per second, before the flood and after it."""

    before: float = 0.0
    after: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    recovery_seconds: float = float("inf")
    bought: int = 0

    def answers(self, status: int) -> list[tuple[Arrival, Answer]]:
        return [
            (arrival, arrival.outcome)
            for arrival in self.arrivals
            if isinstance(arrival.outcome, Answer) and arrival.outcome.status == status
        ]

    @property
    def capacity(self) -> float:
        """The mean, since a noisy machine changes its speed."""
        return (self.before + self.after) / 2

    def goodput(self, seconds: float) -> float:
        """What was served within the time, as a part of the capacity."""
        in_time = sum(arrival.sent + arrival.seconds <= seconds for arrival, _ in self.answers(200))
        return in_time / seconds / self.capacity


@pytest.mark.timeout(1500)
def test_a_flood_costs_nothing_but_the_refused(
    open_vendor: OpenVendor, photos: list[bytes], size: Size, prove: Prove, prove_speed: Prove
) -> None:
    seconds, rounds = size("SECONDS", 4, 60), size("ROUNDS", 1, 5)
    with open_vendor(MAX_ITEMS=ITEMS, MAX_QUEUED_ITEMS=ITEMS, MAX_BATCH_ITEMS=ITEMS) as vendor:
        customer = vendor.customer("flood")
        target = customer.target()
        floods = [asyncio.run(close_after(_flood(vendor, target, photos, seconds), target)) for _ in range(int(rounds))]
        used_units = customer.used_units()
    served, refused = ([one for story in floods for one in story.answers(status)] for status in (200, 503))
    arrived = sum(len(story.arrivals) for story in floods)
    others = arrived - len(served) - len(refused)
    prove("requests lost or answered otherwise", others, goal=f"0 of {arrived}", met=others == 0)
    codes = {answer.headers.get("retry-after", "")[:1].isdigit() for _, answer in refused}
    prove("refusals say when to come back", str(codes == {True}), goal="True", met=codes == {True})
    excess = used_units - sum(story.bought for story in floods) - len(served)
    prove("units billed without an answer", excess, goal="0", met=excess == 0)
    goodputs = [round(story.goodput(seconds), 3) for story in floods]
    capacity, goodput = median(story.capacity for story in floods), median(goodputs)
    name = f"goodput, of {capacity:.1f} images/s, median of {goodputs}"
    prove_speed(name, goodput, goal=">= 0.9", met=goodput >= 0.9)
    waits = [1000 * arrival.seconds for arrival, _ in refused]
    slow = round(float(np.percentile(waits, 99)), 1)
    prove_speed("refusals p99, ms, connecting included", slow, goal="<= 50", met=slow <= 50)
    accepted = round(float(np.percentile([arrival.seconds for arrival, _ in served], 99)), 2)
    prove_speed("served p99, s", accepted, goal="<= 60 (the vendor's max_wait_seconds)", met=accepted <= 60)
    tenth = max(1, len(floods[0].resident) // 10)
    growth = round(100 * (median(floods[-1].resident[-tenth:]) / median(floods[0].resident[:tenth]) - 1), 1)
    prove_speed("memory growth under the flood, percent", growth, goal="<= 10", met=growth <= 10)
    recovery = round(max(story.recovery_seconds for story in floods), 2)
    prove_speed("seconds from the flood's end to a served request", recovery, goal="<= 2", met=recovery <= 2)


async def _flood(vendor: ProofVendor, target: Target, photos: list[bytes], seconds: float) -> Story:
    story = Story()
    bodies = [multipart([photo]) for photo in photos]
    requests = itertools.cycle([target.request(IMAGES_PATH, *body) for body in bodies])
    supply: Callable[[], bytes] = lambda: next(requests)  # noqa: E731 - a name for both loops

    async def capacity(turn_seconds: float) -> float:
        started = time.monotonic()
        outcomes = await hammer(target, supply, CLIENTS, max(1.0, turn_seconds))
        served = sum(answer.status == 200 for answer in answers_of(outcomes))
        story.bought += served
        return served / (time.monotonic() - started)

    await capacity(seconds / 8)  # to warm up
    story.before = await capacity(seconds / 3)
    target.close()

    async def watch_memory() -> None:
        while True:
            story.resident.append(vendor.resident_bytes())
            await asyncio.sleep(0.5)

    async def probe() -> None:
        await asyncio.sleep(seconds)
        ended = time.monotonic()
        while time.monotonic() - ended < PATIENCE_SECONDS:
            answer = await target.ask(supply())
            if answer.status == 200:
                story.bought += 1
                story.recovery_seconds = time.monotonic() - ended
                return
            await asyncio.sleep(PROBE_PAUSE_SECONDS)

    watching = asyncio.create_task(watch_memory())
    probing = asyncio.create_task(probe())
    rate = FACTOR * story.before
    story.arrivals = await open_loop(target, supply, rate, seconds, timeout_seconds=PATIENCE_SECONDS)
    await probing
    watching.cancel()
    story.after = await capacity(seconds / 3)
    return story
