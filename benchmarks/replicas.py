"""Images per second of one vendor and of three, as docker-compose.replicas.yml starts them, and one budget over all.

Clients on the host ask HAProxy, and the vendors keep their bill in PostgreSQL behind PgBouncer; the model is the tiny
teacher, on the CPU. One vendor and three take turns in one run, in alternating order. Needs Docker, and builds the
images if they are not there. All of it shares the machine's cores: where they are few, three vendors are no faster.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from http_target import Target, multipart
from load_generator import Outcome, answers_of, close_after, hammer
from pictures import photo
from result import Goal, write_result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.vendor.compose_stack import Stack, build_images, count_sold, missing_docker  # noqa: E402
from support.vendor.live_parties import free_port  # noqa: E402
from vl2v_contract.wire.headers import OCTET_STREAM  # noqa: E402

LOADS = {"32 clients x 1 image": (32, 1), "12 clients x 32 images": (12, 32)}
"""Clients at a time, and images of each of their requests. One client of ours sends four requests at a time."""

ONE, THREE = 1, 3
_ENOUGH_UNITS = 10_000_000
_IMAGE_SIDE = 64
_PICTURES = 64
_SETTLE_SECONDS = 6.0
"""Until HAProxy has forgotten the vendors that are gone: `hold obsolete` of its configuration, and a second."""

Row = dict[str, object]


def main() -> None:
    chosen = _options()
    missing = missing_docker()
    if missing is not None:
        sys.exit(missing)
    load_average = os.getloadavg()[0]
    print("==> images", file=sys.stderr)
    build_images()
    with _replicas() as stack:
        bench = Bench(stack, chosen.seconds)
        for number in range(chosen.rounds):
            for vendors in (ONE, THREE) if number % 2 == 0 else (THREE, ONE):
                bench.take_turn(vendors)
        goals = bench.judge(chosen.budget)
    notes = [
        f"Clients, HAProxy, PgBouncer, PostgreSQL and the vendors shared {os.cpu_count()} cores.",
        f"The load average of the machine was {load_average:.1f} before the first container started.",
    ]
    write_result("replicas", bench.rows(), goals, out=chosen.out, notes=notes)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=20.0, help="of each load in a turn")
    options.add_argument("--budget", type=int, default=1000, help="images that three vendors may sell in the end")
    options.add_argument("--out", type=Path)
    return options.parse_args()


@contextmanager
def _replicas() -> Iterator[Stack]:
    """Three vendors with the settings of the compose files, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vl2v-replicas-") as folder:
        stack = Stack(Path(folder), f"vl2v-bench-{os.getpid()}", free_port(), is_replicated=True)
        stack.settings = {"POSTGRES_PASSWORD": "bench"}
        stack.lay_out()
        try:
            print("==> three vendors", file=sys.stderr)
            stack.up()
            yield stack
        finally:
            stack.remove()


class Bench:
    """One run: the running project, its one account, and what each turn gave."""

    def __init__(self, stack: Stack, seconds: float) -> None:
        self._stack = stack
        self._seconds = seconds
        self._key = stack.create_key("bench", _ENOUGH_UNITS)
        self._pictures = itertools.cycle([_png(seed) for seed in range(_PICTURES)])
        self._rates: dict[tuple[str, int], list[float]] = {}
        self._refused: dict[tuple[str, int], int] = {}
        self._sold = 0

    def take_turn(self, vendors: int) -> None:
        """Both loads on so many vendors."""
        self._stack.up("--scale", f"vendor={vendors}")
        time.sleep(_SETTLE_SECONDS)
        for load, (clients, size) in LOADS.items():
            self._load(clients, size, 3.0)  # so that no first request is counted
            outcomes, seconds = self._load(clients, size, self._seconds)
            images = _sold(outcomes) * size
            self._rates.setdefault((load, vendors), []).append(images / seconds)
            refused = len(outcomes) - _sold(outcomes)
            self._refused[load, vendors] = self._refused.get((load, vendors), 0) + refused
            print(f"{load}, {vendors} vendors: {images / seconds:.1f} images/s, {refused} refused", file=sys.stderr)

    def _load(self, clients: int, size: int, seconds: float) -> tuple[list[Outcome], float]:
        began = time.perf_counter()
        outcomes = self._ask(self._key, clients, size, seconds)
        self._sold += _sold(outcomes) * size
        return outcomes, time.perf_counter() - began

    def _ask(self, key: str, clients: int, size: int, seconds: float) -> list[Outcome]:
        target = Target(self._stack.url, {"Authorization": f"Bearer {key}"})

        def next_request() -> bytes:
            files = list(itertools.islice(self._pictures, size))
            return target.request("/v1/embeddings/images", *multipart(files), {"Accept": OCTET_STREAM})

        return asyncio.run(close_after(hammer(target, next_request, clients, seconds), target))

    def judge(self, budget: int) -> list[Goal]:
        """Hold the bill against what was delivered, and spend one budget on three vendors."""
        billed = self._stack.used_units("bench")
        self._stack.up("--scale", f"vendor={THREE}")
        time.sleep(_SETTLE_SECONDS)
        key, sold, statuses = self._stack.create_key("small", budget), 0, set[int]()
        before = [count_sold(container, "image") for container in self._stack.vendors()]
        while 402 not in statuses:
            outcomes = self._ask(key, 32, 1, 5.0)
            statuses = {answer.status for answer in answers_of(outcomes)}
            sold += _sold(outcomes)
        after = [count_sold(container, "image") for container in self._stack.vendors()]
        sellers = sum(late > early for early, late in zip(before, after, strict=True))
        self._stack.verify()
        units = self._stack.used_units("small")
        return [
            Goal(f"units billed, of {self._sold} delivered", billed, str(self._sold), billed == self._sold),
            Goal(f"images sold by three vendors of one budget of {budget}", sold, str(budget), sold == budget),
            Goal(f"units billed of that budget of {budget}", units, str(budget), units == budget),
            Goal("vendors that sold a part of it", sellers, "3", sellers == THREE),
        ]

    def rows(self) -> list[Row]:
        """One row for each load and number of vendors."""
        return [
            {
                "load": load,
                "vendors": vendors,
                "median": round(median(rates), 1),
                "unit": "images/s",
                "least": round(min(rates), 1),
                "most": round(max(rates), 1),
                "to_one": round(median(mine / one for mine, one in zip(rates, self._rates[load, ONE], strict=True)), 2),
                "rounds": len(rates),
                "refused": self._refused[load, vendors],
            }
            for load in LOADS
            for vendors in (ONE, THREE)
            for rates in [self._rates[load, vendors]]
        ]


def _sold(outcomes: list[Outcome]) -> int:
    """Requests that were answered with vectors."""
    return sum(answer.status == 200 for answer in answers_of(outcomes))


def _png(seed: int) -> bytes:
    """A drawn photo at the tiny teacher's input size, as a client sends it."""
    file = io.BytesIO()
    photo(seed, (_IMAGE_SIDE, _IMAGE_SIDE)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
