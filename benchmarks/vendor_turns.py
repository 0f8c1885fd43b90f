"""What `vendor.py` measures of models and servers: each arm gets its turn in every round, in alternating order."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from http_target import Answer
from load_generator import closed_loop
from numpy.typing import NDArray
from raw_model import RawModel, Way
from vendor_arms import INFINITY, NAIVE, OURS, RAW, TEXTS_PATH, Arm

Row = dict[str, object]

MANY_CLIENTS, MANY_IMAGES, ONE_BUYER = "32 clients x 1 image", "4 clients x 32 images", "1 client x 32 images"
LOADS = {MANY_CLIENTS: (32, 1), MANY_IMAGES: (4, 32), ONE_BUYER: (1, 32)}
"""Clients at a time, and images of each of their requests. Four requests at a time is what our client sends."""

IN_PROCESS, IDLE, CAPTIONS = "in one process", "1 idle client, 1 image", "1 client x 32 captions"
_LOADS_OF = {NAIVE: (MANY_CLIENTS,), OURS: tuple(LOADS), INFINITY: (MANY_CLIENTS, MANY_IMAGES)}
_REST_SECONDS = 0.3
_SHORT_TURNS = 5
_ANIMALS = ("cat", "dog", "horse", "bird", "fish", "sheep", "fox", "owl")
_CAPTIONS = tuple(
    f"a {kind} of a {animal}" for kind in ("photo", "sketch", "painting", "drawing") for animal in _ANIMALS
)

Place = tuple[str, str]
"""A load and an arm."""


@dataclass
class Figures:
    """What the turns gave, by load and arm: one value a round."""

    values: dict[Place, list[float]] = field(default_factory=dict)
    generator_percent: dict[Place, list[float]] = field(default_factory=dict)

    def add(self, place: Place, value: float, generator_percent: float | None = None) -> None:
        self.values.setdefault(place, []).append(value)
        if generator_percent is not None:
            self.generator_percent.setdefault(place, []).append(generator_percent)
        print(f"{' / '.join(place)}: {value:.4g}", file=sys.stderr)

    def ratio(self, place: Place, to: Place) -> float | None:
        """The median over rounds of one value through the other of the same round; None if one is missing."""
        if place not in self.values or to not in self.values:
            return None
        return median(mine / its for mine, its in zip(self.values[place], self.values[to], strict=True))

    def rows(self, unit: str, base: str) -> list[Row]:
        """One row for each load and arm; `base` is the load of RAW that all are held against."""
        return [
            make_row(
                *place,
                unit,
                values,
                to_raw=self.ratio(place, (base, RAW)),
                generator_percent=self.generator_percent.get(place),
            )
            for place, values in self.values.items()
        ]


def make_row(
    load: str,
    arm: str,
    unit: str,
    values: Sequence[float],
    *,
    to_raw: float | None = None,
    generator_percent: Sequence[float] | None = None,
    note: str = "",
) -> Row:
    """A row of the table; without values it says in `note` why there are none."""
    return {
        "load": load,
        "arm": arm,
        "median": round(median(values), 4) if values else None,
        "unit": unit,
        "least": round(min(values), 4) if values else None,
        "most": round(max(values), 4) if values else None,
        "rounds": len(values),
        "to_raw": round(to_raw, 3) if to_raw is not None else None,
        "generator_cpu_percent": round(median(generator_percent), 1) if generator_percent else None,
        "note": note,
    }


async def measure_throughput(
    arms: Sequence[Arm], raw: RawModel, way: Way, photos: Sequence[bytes], *, rounds: int, images: int
) -> Figures:
    """Images per second of every arm under its loads, decoding included."""
    figures = Figures()

    async def raw_turn() -> None:
        seconds = await asyncio.to_thread(raw.seconds_for, images, way)
        figures.add((IN_PROCESS, RAW), images / seconds)

    async def turn(arm: Arm, load: str) -> None:
        clients, size = LOADS[load]
        each = max(2, round(images / size / clients))  # by every client: an uneven end would idle the others
        requests = list(itertools.islice(_requests(arm, photos, size), each * clients))
        done = await closed_loop(arm.target, requests, clients)
        check(done.answers)
        percent = 100 * done.cpu_seconds / done.seconds
        figures.add((load, arm.name), len(requests) * size / done.seconds, percent)

    turns: list[Callable[[], Awaitable[None]]] = [raw_turn]
    turns += [_bound(turn, arm, load) for arm in arms for load in _LOADS_OF[arm.name]]
    for arm in arms:
        await _warm_up(arm, photos)
    await take_turns(turns, rounds)
    return figures


async def measure_latency(
    arms: Sequence[Arm], raw: RawModel, photos: Sequence[bytes], *, rounds: int, calls: int
) -> Figures:
    """Median milliseconds of one image when nobody else asks, decoding included.

    In many short turns: a machine that changes its speed within seconds would decide the comparison otherwise.
    """
    figures = Figures()
    calls = max(2, calls // _SHORT_TURNS)

    async def direct() -> None:
        figures.add((IDLE, RAW), 1000 * median(await asyncio.to_thread(raw.direct_calls, calls)))

    async def turn(arm: Arm) -> None:
        requests = list(itertools.islice(_requests(arm, photos, 1), calls))
        done = await closed_loop(arm.target, requests, 1)
        check(done.answers)
        figures.add((IDLE, arm.name), 1000 * median(answer.seconds for answer in done.answers))

    await take_turns([direct, *(_bound(turn, arm) for arm in arms)], rounds * _SHORT_TURNS)
    return figures


async def measure_texts(arm: Arm, raw: RawModel, *, rounds: int, batches: int) -> tuple[Figures, float]:
    """Captions per second in requests of 32, and how far their vectors are from open_clip's own.

    open_clip pads every text to the context length.
    """
    figures = Figures()
    items = [{"text": caption} for caption in _CAPTIONS]
    request = arm.target.request(TEXTS_PATH, json.dumps({"items": items}).encode())
    captions = len(_CAPTIONS)
    reference = await asyncio.to_thread(raw.encode_texts, _CAPTIONS)
    difference = float(np.abs(vectors_of(await arm.target.ask(request)) - reference).max())

    async def padded() -> None:
        seconds = await asyncio.to_thread(raw.seconds_for_texts, _CAPTIONS, max(1, batches // 4))
        figures.add((CAPTIONS, RAW), captions * max(1, batches // 4) / seconds)

    async def turn() -> None:
        done = await closed_loop(arm.target, [request] * batches, 1)
        check(done.answers)
        figures.add((CAPTIONS, OURS), captions * batches / done.seconds)

    await take_turns([padded, turn], rounds)
    return figures, difference


async def take_turns(turns: Sequence[Callable[[], Awaitable[None]]], rounds: int) -> None:
    """Every turn once a round; every other round backwards, so that a drift of the machine favours nobody."""
    for number in range(rounds):
        for turn in turns if number % 2 == 0 else reversed(turns):
            await turn()
            await asyncio.sleep(_REST_SECONDS)


async def _warm_up(arm: Arm, photos: Sequence[bytes]) -> None:
    """Each of its loads once, so that nobody compiles or grows a cache in the first round."""
    for load in _LOADS_OF[arm.name]:
        clients, size = LOADS[load]
        check(
            (
                await closed_loop(arm.target, list(itertools.islice(_requests(arm, photos, size), clients)), clients)
            ).answers
        )


def check(answers: Sequence[Answer]) -> None:
    """Stop at an answer that is none.

    Raises:
        RuntimeError: names the status and what was said.
    """
    for answer in answers:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.body[:300]!r}")


def vectors_of(answer: Answer) -> NDArray[np.float32]:
    """`[N, D]` of a JSON answer with float32 vectors in base64."""
    check([answer])
    data: list[Mapping[str, str]] = json.loads(answer.body)["data"]
    return np.stack([np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in data])


def _requests(arm: Arm, photos: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Requests of `size` images each, every photo in turn."""
    supply = itertools.cycle(photos)
    while True:
        yield arm.ask_for(list(itertools.islice(supply, size)))


def _bound(turn: Callable[..., Awaitable[None]], *arguments: object) -> Callable[[], Awaitable[None]]:
    return lambda: turn(*arguments)
