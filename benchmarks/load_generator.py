"""Load on a server: closed loops of clients that ask again when answered, open loops that ask at a steady rate."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from http_target import Answer, ConnectionLost, Target

T = TypeVar("T")

Outcome: TypeAlias = Answer | Exception
"""An answer, or why there is none."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of an open loop.

    Attributes:
        sent: seconds from the start of the loop.
        seconds: until its outcome, opening a connection included.
        outcome: its answer, or why there is none.
    """

    sent: float
    seconds: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Turn:
    """What a closed loop brought: its answers in the order of their requests, and the wall and CPU time it took."""

    answers: list[Answer]
    seconds: float
    cpu_seconds: float


async def closed_loop(target: Target, requests: Sequence[bytes], clients: int) -> Turn:
    """So many clients share out the requests, each asking again as soon as it is answered.

    Raises:
        ConnectionLost, TimeoutError, OSError: a request had no answer.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    outcomes = await ask_all(target, requests, clients)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    answers = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        answers.append(outcome)
    return Turn(answers, seconds, cpu_seconds)


async def ask_all(
    target: Target, requests: Sequence[bytes], clients: int, *, timeout_seconds: float = 120.0
) -> list[Outcome]:
    """The same, whatever becomes of the requests: an answer, or why there is none, of each in order."""
    outcomes: dict[int, Outcome] = {}
    waiting = iter(enumerate(requests))

    async def ask_in_turn() -> None:
        for index, request in waiting:
            outcomes[index] = await _outcome(target, request, timeout_seconds)

    await asyncio.gather(*(ask_in_turn() for _ in range(clients)))
    return [outcomes[index] for index in range(len(requests))]


async def hammer(
    target: Target,
    next_request: Callable[[], bytes],
    clients: int,
    seconds: float,
    *,
    pause_seconds: float = 0.05,
    timeout_seconds: float = 120.0,
) -> list[Outcome]:
    """So many clients ask again and again until the time is over, and pause after anything but 200."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds

    async def ask_on() -> None:
        while time.monotonic() < end:
            outcome = await _outcome(target, next_request(), timeout_seconds)
            outcomes.append(outcome)
            if isinstance(outcome, Exception) or outcome.status != 200:
                await asyncio.sleep(pause_seconds)

    await asyncio.gather(*(ask_on() for _ in range(clients)))
    return outcomes


async def open_loop(
    target: Target,
    next_request: Callable[[], bytes],
    per_second: float,
    seconds: float,
    *,
    timeout_seconds: float = 120.0,
) -> list[Arrival]:
    """Send requests at a steady rate, whatever becomes of those before; wait for every outcome.

    This process collects no garbage of before meanwhile: its pause would be measured as the server's.
    """
    gc.collect()
    gc.freeze()
    started = time.monotonic()
    arrivals: list[Arrival] = []

    async def send(due: float) -> None:
        began = time.monotonic()
        outcome = await _outcome(target, next_request(), timeout_seconds)
        arrivals.append(Arrival(due, time.monotonic() - began, outcome))

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_second * seconds)):
            due = number / per_second
            await asyncio.sleep(max(0.0, started + due - time.monotonic()))
            tasks.create_task(send(due))
    gc.unfreeze()
    return sorted(arrivals, key=lambda arrival: arrival.sent)


async def close_after(story: Awaitable[T], *targets: Target) -> T:
    """Await `story`, then close the connections that it used, in the loop that opened them."""
    try:
        return await story
    finally:
        for target in targets:
            target.close()


def answers_of(outcomes: Iterable[Outcome]) -> list[Answer]:
    """Those that were answered."""
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


async def _outcome(target: Target, request: bytes, timeout_seconds: float) -> Outcome:
    try:
        return await target.ask(request, timeout_seconds=timeout_seconds)
    except (ConnectionLost, OSError) as error:  # TimeoutError is an OSError
        return error
