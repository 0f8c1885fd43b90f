"""Half an hour of everything that goes wrong: memory stays, connections close, the books balance."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import pytest
from http_target import ConnectionLost, Target, multipart
from load_generator import Outcome, answers_of, ask_all, hammer

from support.adversary.poison import IMAGES_PATH, TEXTS_PATH, Order, make_orders
from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import Customer, OpenVendor, ProofVendor, Size

SINGLES, BULK, READERS = 4, 2, 2
BULK_IMAGES = 16
BURST = 300
SAMPLE_SECONDS = 1.0
QUIET_SECONDS = 8.0
"""Servers close idle connections after five seconds."""
TURN_SECONDS = 5.0
WARM_SECONDS = 25.0
"""With one burst, by which the pool opens the connections that it keeps."""


@dataclass
class Log:
    """What the soak saw. Units are what the customers were told that they bought."""

    bought_units: int = 0
    unanswered: int = 0
    other_ends: int = 0
    vanished: int = 0
    faults: int = 0
    resident: list[int] = field(default_factory=list)

    def note(self, outcomes: list[Outcome]) -> None:
        answers = answers_of(outcomes)
        self.unanswered += len(outcomes) - len(answers)
        for answer in answers:
            if answer.status == 200:
                self.bought_units += int(json.loads(answer.body)["usage"]["billed_units"])
            else:
                self.other_ends += answer.status not in (422, 503)


@pytest.mark.timeout(3600)
def test_a_soak_with_faults(
    open_vendor: OpenVendor, photos: list[bytes], size: Size, prove: Prove, prove_speed: Prove
) -> None:
    seconds = 60 * size("MINUTES", 0.4, 30)
    with open_vendor(MAX_QUEUED_ITEMS=256) as vendor:
        customer, leaver = vendor.customer("stays"), vendor.customer("leaves")
        soak = Soak(vendor, customer, leaver, photos)
        asyncio.run(soak.work(min(WARM_SECONDS, seconds / 4), faults=False))
        time.sleep(QUIET_SECONDS)
        files_before = vendor.open_files()
        soak.log.resident.clear()
        asyncio.run(soak.work(seconds, faults=True))
        vendor.seconds_until(ready=True, within_seconds=60)
        time.sleep(QUIET_SECONDS)
        files_after = vendor.open_files()
        drift = _drift(vendor)
        is_clean = vendor.verify_ledger()
        used, left = customer.used_units(), leaver.used_units()
    log = soak.log
    prove("requests without an answer", log.unanswered, goal="0", met=log.unanswered == 0)
    prove("answers other than 200, 422 and 503", log.other_ends, goal="0", met=log.other_ends == 0)
    name = f"units billed and not delivered, of {used}, after {log.faults} faults"
    prove(name, used - log.bought_units, goal="0", met=used == log.bought_units)
    prove("units billed to clients that vanished", left, goal=f"<= {log.vanished} sent", met=left <= log.vanished)
    prove("ledger_drift_units", drift, goal="0", met=drift == 0)
    prove("the ledger verifies", str(is_clean), goal="True", met=is_clean)
    leaked = files_after - files_before
    prove("connections and files leaked", str(dict(leaked)), goal="{}", met=not leaked)
    tenth = max(1, len(log.resident) // 10)
    first, last = median(log.resident[tenth : 2 * tenth]), median(log.resident[-tenth:])
    growth = round(100 * (last / first - 1), 2)
    prove_speed(f"memory growth of {first / 2**20:.0f} MiB, percent", growth, goal="<= 5", met=growth <= 5)


class Soak:
    """Buyers of every kind, and whoever and whatever disturbs them."""

    def __init__(self, vendor: ProofVendor, customer: Customer, leaver: Customer, photos: list[bytes]) -> None:
        self.log = Log()
        self._vendor = vendor
        self._customer = customer
        self._leaver = leaver
        self._photos = photos
        self._orders: list[Order] = [order for order in make_orders(photos, 400, 0.3) if order.clean != order]
        self._dice = random.Random(1)
        self._end = 0.0

    async def work(self, seconds: float, *, faults: bool) -> None:
        """Everybody at once until the time is over."""
        self._end = time.monotonic() + seconds
        target, gone = self._customer.target(), self._leaver.target()
        single = [target.request(IMAGES_PATH, *multipart([photo])) for photo in self._photos]
        bulk = [target.request(IMAGES_PATH, *multipart(self._photos[:BULK_IMAGES]))]
        captions = json.dumps({"items": [{"text": f"a photo of {number} cats"} for number in range(8)]}).encode()
        texts = [target.request(TEXTS_PATH, captions)]
        async with asyncio.TaskGroup() as everybody:
            for requests, clients in ((single, SINGLES), (bulk, BULK), (texts, READERS)):
                everybody.create_task(self._buy(target, itertools.cycle(requests), clients))
            everybody.create_task(self._repeat(0.1, lambda: self._poison(target)))
            everybody.create_task(self._repeat(0.1, lambda: self._vanish(gone)))
            everybody.create_task(self._repeat(20.0, lambda: self._burst(target, single)))
            everybody.create_task(self._repeat(SAMPLE_SECONDS, self._sample))
            if faults:
                everybody.create_task(self._repeat(max(5.0, min(60.0, seconds / 4)), self._fault))
        target.close()

    async def _buy(self, target: Target, requests: Iterator[bytes], clients: int) -> None:
        while time.monotonic() < self._end:
            self.log.note(await hammer(target, lambda: next(requests), clients, min(TURN_SECONDS, self._left())))

    async def _repeat(self, pause_seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while self._left() > pause_seconds:
            await asyncio.sleep(pause_seconds)
            await act()

    async def _poison(self, target: Target) -> None:
        self.log.note(await ask_all(target, [self._dice.choice(self._orders).request(target)], 1))

    async def _burst(self, target: Target, requests: list[bytes]) -> None:
        chosen = [requests[number % len(requests)] for number in range(BURST)]
        self.log.note(await ask_all(target, chosen, BURST))

    async def _vanish(self, target: Target) -> None:
        connection = await target.connect()
        self.log.vanished += 1
        asking = asyncio.ensure_future(
            connection.ask(target.request(IMAGES_PATH, *multipart([self._dice.choice(self._photos)])))
        )
        await asyncio.sleep(self._dice.uniform(0, 0.05))
        connection.abort()
        with suppress(ConnectionLost):
            await asking

    async def _sample(self) -> None:
        self.log.resident.append(self._vendor.resident_bytes())

    async def _fault(self) -> None:
        """Kill the model's process, next time stop it; not while the one before is being replaced."""
        with suppress(LookupError, ProcessLookupError):
            self._vendor.signal_model(signal.SIGSTOP if self.log.faults % 2 else signal.SIGKILL)
            self.log.faults += 1

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def _drift(vendor: ProofVendor) -> float:
    return vendor.metrics()["ledger_drift_units"]
