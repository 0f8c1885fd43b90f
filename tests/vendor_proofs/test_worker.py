"""The model's process dies or stands still under load: readiness is red in time, all are told, and it comes back."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import signal
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from http_target import Answer, Target, multipart
from load_generator import Outcome, answers_of, close_after, hammer

from support.adversary.poison import IMAGES_PATH
from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import OpenVendor, ProofVendor

CLIENTS = 8
POLL_ALLOWANCE_SECONDS = 0.5
"""What may pass between the end of the limit and our seeing it: two periods of the heartbeat, and a poll."""
BACK_SECONDS = 120.0


@dataclass
class Fault:
    """What was seen of it.

    Attributes:
        red_seconds: from the signal to readiness refused.
        green_seconds: from there to readiness again.
        outcomes: of the clients that asked all the while.
        difference: of the same photo's vector before and after.
        bought: answers outside the load.
    """

    red_seconds: float = float("inf")
    green_seconds: float = float("inf")
    outcomes: list[Outcome] = field(default_factory=list)
    difference: float = float("inf")
    bought: int = 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_model_process_is_noticed_told_and_replaced(
    number: signal.Signals, open_vendor: OpenVendor, photos: list[bytes], prove: Prove, prove_speed: Prove
) -> None:
    with open_vendor() as vendor:
        customer = vendor.customer("buyers")
        target = customer.target()
        fault = asyncio.run(close_after(_lose_the_model(vendor, target, photos, number), target))
        limit, slowest = vendor.stuck_seconds(), _slowest_batch(vendor)
        used_units = customer.used_units()
    name = number.name
    answers = answers_of(fault.outcomes)
    lost = len(fault.outcomes) - len(answers)
    prove(f"{name}: requests that hung or were lost", lost, goal=f"0 of {len(fault.outcomes)}", met=lost == 0)
    ends = Counter(_end_of(answer) for answer in answers)
    allowed = {"200", "503 model_unavailable", "503 overloaded"}
    prove(f"{name}: how requests ended", str(dict(ends)), goal="200 or 503", met=set(ends) <= allowed)
    told = ends["503 model_unavailable"]
    prove(f"{name}: waiters told that the model is gone", told, goal=">= 1", met=told >= 1)
    is_back = fault.green_seconds < BACK_SECONDS
    prove(f"{name}: seconds until ready again", round(fault.green_seconds, 2), goal=f"< {BACK_SECONDS:g}", met=is_back)
    prove(
        f"{name}: next answer against the one before", fault.difference, goal="<= 1e-06", met=fault.difference <= 1e-6
    )
    excess = used_units - ends["200"] - fault.bought
    prove(f"{name}: units billed without an answer", excess, goal="0", met=excess == 0)
    in_time = fault.red_seconds <= limit + POLL_ALLOWANCE_SECONDS
    prove_speed(f"{name}: seconds until not ready", round(fault.red_seconds, 2), goal=f"<= {limit:.2f}", met=in_time)
    waited = max(answer.seconds for answer in answers if answer.status == 503)
    goal = f"<= {limit:.2f} and a batch"
    is_prompt = waited <= limit + slowest + POLL_ALLOWANCE_SECONDS
    prove_speed(f"{name}: longest wait for a 503, s", round(waited, 2), goal=goal, met=is_prompt)


async def _lose_the_model(vendor: ProofVendor, target: Target, photos: list[bytes], number: signal.Signals) -> Fault:
    fault = Fault()
    supply = itertools.cycle([target.request(IMAGES_PATH, *multipart([photo])) for photo in photos])
    probe = next(supply)
    before = _vector(await target.ask(probe))
    over = asyncio.Event()

    async def ask_on() -> None:
        while not over.is_set():
            fault.outcomes += await hammer(target, lambda: next(supply), CLIENTS, 0.5, timeout_seconds=60)

    load = asyncio.create_task(ask_on())
    await asyncio.sleep(1.5)
    vendor.signal_model(number)
    fault.red_seconds = await asyncio.to_thread(vendor.seconds_until, ready=False, within_seconds=30)
    fault.green_seconds = await asyncio.to_thread(vendor.seconds_until, ready=True, within_seconds=BACK_SECONDS)
    await asyncio.sleep(1.0)
    over.set()
    await load
    after = _vector(await target.ask(probe))
    fault.difference = float(f"{np.abs(after - before).max():.3g}")
    fault.bought = 2
    return fault


def _vector(answer: Answer) -> np.ndarray:
    """`[D]` of the one item."""
    assert answer.status == 200, answer.body
    return np.frombuffer(base64.b64decode(json.loads(answer.body)["data"][0]["embedding"]), dtype="<f4")


def _end_of(answer: Answer) -> str:
    return "200" if answer.status == 200 else f"{answer.status} {json.loads(answer.body)['code']}"


def _slowest_batch(vendor: ProofVendor) -> float:
    """The upper edge, in seconds, of the bucket that the slowest batch fell into."""
    prefix, metrics = 'vl2v_batch_seconds_bucket{lane="image",le="', vendor.metrics()
    total = metrics['vl2v_batch_seconds_count{lane="image"}']
    full = [name for name, value in metrics.items() if name.startswith(prefix) and value == total]
    return min(float(name.removeprefix(prefix).rstrip('"}')) for name in full)
