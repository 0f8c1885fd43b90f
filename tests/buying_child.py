"""A purchase in a process of its own, which kills itself with SIGKILL at the n-th SQL statement (0: never)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from buying_bench import ask, draw_pictures
from fake_vendor import API_KEY
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.planning.plan import make_plan
from vl2v_client.planning.purchase import buy
from vl2v_client.planning.vendor import meet_vendor


def purchase(url: str, cache_path: Path, data: Path, pictures: int, kill_at: int) -> None:
    statements_left = kill_at

    def count(_statement: str) -> None:
        nonlocal statements_left
        statements_left -= 1
        if statements_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    # A shell that starts tests in the background has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with EmbeddingCache(cache_path) as cache, VendorClient(url, API_KEY) as client:
        teacher = meet_vendor(client, cache).teacher
        plan = make_plan(ask(draw_pictures(data, pictures)), [], teacher, cache)
        cache._database._connection.set_trace_callback(count)
        buy(plan, client, cache)
