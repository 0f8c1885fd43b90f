"""A vendor under attack, and a customer who buys meanwhile: what the attack costs the customer, the vendor and the log.

The customer, the attacker and the vendor are processes of their own. The customer buys one image after the other, each
in a request of its own, before the attack, during it and after it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from http_target import Answer, Target, multipart
from load_generator import Outcome, close_after, hammer
from local_vendor import BIN

from support.adversary.attack_program import Attacker
from support.adversary.poison import IMAGES_PATH
from support.proofs.proof_vendor import Customer, ProofVendor, proof_vendor

BATCH_ITEMS = 8
_SETTINGS = {"MAX_BATCH_ITEMS": str(BATCH_ITEMS), "MAX_CONNECTIONS": "1024", "MAX_PIXELS": "50000000"}
_ASKING_SECONDS = 60.0
_QUIET_SECONDS = 70.0
"""Of which the server gives free memory back twice."""
_LANE = '{lane="image"}'


@dataclass
class Watch:
    """What the customer was answered in one stretch of time."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        return [one for one in self.outcomes if isinstance(one, Answer) and one.status == 200]

    @property
    def asked(self) -> int:
        return len(self.outcomes)

    @property
    def others(self) -> int:
        """How many requests were refused, lost or not answered in time."""
        return len(self.outcomes) - len(self.answers)

    @property
    def p99_seconds(self) -> float:
        """The p99 of the wait; what was not answered well counts as a minute."""
        waits = [one.seconds for one in self.answers] + [_ASKING_SECONDS] * self.others
        return float(np.percentile(waits, 99)) if waits else _ASKING_SECONDS


@dataclass(frozen=True)
class Attack:
    """What one attack did.

    Attributes:
        seen: how the attacker's acts ended, by status or `closed`.
        log_bytes_per_minute: growth of the vendor's log meanwhile.
        peak_bytes: the most memory that the vendor's server had meanwhile.
    """

    before: Watch
    during: Watch
    after: Watch
    seen: Counter[str]
    log_bytes_per_minute: float
    peak_bytes: int

    @property
    def watches(self) -> tuple[Watch, Watch, Watch]:
        return self.before, self.during, self.after


@dataclass
class Siege:
    """One vendor, an honest customer, and an attacker with a key of budget 0.

    Attributes:
        batch_seconds: how long the model takes for a full batch, by the vendor's own metrics.
        resident_bytes: the server's memory before the first attack.
        bought_units: what the customer was told that it bought.
    """

    vendor: ProofVendor
    customer: Customer
    attacker: Customer
    requests: Iterator[bytes]
    attacker_log: Path
    batch_seconds: float = 0.0
    resident_bytes: int = 0
    bought_units: int = 0

    def attack(self, name: str, *, seconds: float, count: int) -> Attack:
        """Run one attack, while the customer buys."""
        port = int(self.vendor.url.rpartition(":")[2])
        with Attacker(
            name, port, self.attacker.secret, seconds=seconds, count=count, log=self.attacker_log
        ) as attacker:
            before = self.watch(seconds / 2)
            log_bytes, began = self.vendor.log.stat().st_size, time.monotonic()
            self.vendor.reset_peak()
            attacker.begin()
            during = self.watch(seconds)
            seen = attacker.end()
            minutes = max(1.0, (time.monotonic() - began) / 60)
        growth = (self.vendor.log.stat().st_size - log_bytes) / minutes
        return Attack(before, during, self.watch(seconds / 2), seen, growth, self.vendor.peak_bytes())

    def watch(self, seconds: float) -> Watch:
        """Buy for some time, one image after the other."""
        target = self.customer.target()
        outcomes = asyncio.run(close_after(self._buy(target, seconds), target))
        watch = Watch(outcomes)
        self.bought_units += sum(int(json.loads(one.body)["usage"]["billed_units"]) for one in watch.answers)
        return watch

    def settle(self, enough_bytes: int) -> int:
        """Wait until nothing is under way any more and free memory is given back; return the server's memory."""
        end = time.monotonic() + _QUIET_SECONDS
        while (found := self.vendor.resident_bytes()) > enough_bytes and time.monotonic() < end:
            time.sleep(1.0)
        return found

    def audit_is_clean(self) -> bool:
        """Whether the customer's own audit finds nothing: what it bought it bought without the client."""
        words = [str(BIN / "vl2v-client"), "audit", "--accept-others"]
        environment = self.vendor.environment | {"VL2V_API_KEY": self.customer.secret}
        return subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0

    def measure_batch(self, files: Sequence[bytes], times: int) -> None:
        """Buy full batches and nothing else; learn how long the model takes for one."""
        full = [files[number % len(files)] for number in range(BATCH_ITEMS)]
        before = self.vendor.metrics()
        target = self.customer.target()
        request = target.request(IMAGES_PATH, *multipart(full))

        async def buy() -> None:
            for _ in range(times):
                answer = await target.ask(request)
                assert answer.status == 200, answer.body
                self.bought_units += BATCH_ITEMS

        asyncio.run(close_after(buy(), target))
        after = self.vendor.metrics()
        seconds, count = (_grown(before, after, f"vl2v_batch_seconds_{name}") for name in ("sum", "count"))
        self.batch_seconds = seconds / count

    async def _buy(self, target: Target, seconds: float) -> list[Outcome]:
        return await hammer(target, lambda: next(self.requests), 1, seconds, timeout_seconds=_ASKING_SECONDS)


@contextmanager
def besieged_vendor(
    home: Path, options: Sequence[str], photos: Sequence[bytes], *, warm_seconds: float, **settings: object
) -> Iterator[Siege]:
    """A vendor that is warm: its customer has bought for some time, and its memory is settled."""
    named: Mapping[str, str] = {**_SETTINGS, **{name: str(value) for name, value in settings.items()}}
    with proof_vendor(home, options, named, log_level="info") as vendor:
        customer, attacker = vendor.customer("honest"), vendor.customer("attacker", budget_units=0)
        bodies = [customer.target().request(IMAGES_PATH, *multipart([photo])) for photo in photos]
        siege = Siege(vendor, customer, attacker, itertools.cycle(bodies), home / "attacker.log")
        siege.watch(warm_seconds)
        siege.measure_batch(photos, times=5)
        siege.resident_bytes = vendor.resident_bytes()
        yield siege


def _grown(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    return after[name + _LANE] - before.get(name + _LANE, 0.0)
