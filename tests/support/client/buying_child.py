"""Purchases in processes of their own, which kill themselves with SIGKILL at a chosen moment."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from support.client.buying_bench import ask, buy, draw_pictures, meet_vendor
from support.client.fake_vendor import API_KEY
from support.forked import write_to
from vl2v_client.api.client import VendorClient
from vl2v_client.api.connection import Connection
from vl2v_client.cache import database
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.cli import app
from vl2v_client.planning.query_plan import make_plan


@dataclass(frozen=True)
class KillPoint:
    """The `number`-th time that a child comes to a moment: a statement of its own ledger, or one around a POST."""

    moment: Literal["statement", "before sending", "under way", "headers in", "answer in"]
    number: int


def purchase(url: str, cache_path: Path, data: Path, pictures: int, kill_at: int) -> None:
    """Buy from a fake vendor; die at the `kill_at`-th statement (0: never)."""
    # A shell that starts tests in the background has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with EmbeddingCache(cache_path) as cache, VendorClient(url, API_KEY) as client:
        teacher = meet_vendor(client, cache)
        plan = make_plan(ask(draw_pictures(data, pictures)), [], teacher, cache)
        cache._database._connection.set_trace_callback(_countdown(kill_at))
        buy(plan, client, cache)


def command(words: Sequence[str], log: Path, point: KillPoint | None = None) -> None:
    """Run the client's real command line; its output goes to `log`; die at `point`."""
    for variable in [name for name in os.environ if name.startswith("VL2V_")]:
        del os.environ[variable]
    write_to(log, log)
    if point is not None:
        _arm(point)
    sys.exit(app.run(words))


def _arm(point: KillPoint) -> None:
    come_to = _countdown(point.number)
    if point.moment == "statement":
        open_connection = database.open_connection

        def open_traced(path: Path) -> sqlite3.Connection:
            connection = open_connection(path)
            connection.set_trace_callback(come_to)
            return connection

        database.open_connection = open_traced  # type: ignore[attr-defined]
    elif point.moment == "answer in":
        request = Connection.request

        def request_and_die(self: Connection, method: str, *words: Any, **content: Any) -> httpx.Response:
            response = request(self, method, *words, **content)
            if method == "POST":
                come_to("")
            return response

        Connection.request = request_and_die  # type: ignore[method-assign]
    else:
        _arm_transport(point, come_to)


def _arm_transport(point: KillPoint, come_to: Callable[[str], None]) -> None:
    handle_request = httpx.HTTPTransport.handle_request
    under_way = _countdown(point.number, lambda: threading.Timer(0.01 * random.random(), _die).start())

    def handle_and_die(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        is_post = request.method == "POST"
        if is_post and point.moment == "before sending":
            come_to("")
        if is_post and point.moment == "under way":
            under_way("")
        response = handle_request(self, request)
        if is_post and point.moment == "headers in":
            come_to("")
        return response

    httpx.HTTPTransport.handle_request = handle_and_die  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _countdown(number: int, act: Callable[[], None] = _die) -> Callable[[str], None]:
    """A trace callback that acts at its `number`-th call."""
    left = number
    lock = threading.Lock()

    def count(_statement: str) -> None:
        nonlocal left
        with lock:
            left -= 1
            due = left == 0
        if due:
            act()

    return count
