"""A bad network on loopback: loses some answers after the vendor gave them, and delivers some requests twice."""

from __future__ import annotations

import http.client
import random
import re
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler

from support.loopback import serve_on_loopback

_ITEM_KEY = re.compile(rb'"[0-9a-f]{64}"')
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})
Answer = tuple[int, list[tuple[str, str]], bytes]


class LossyProxy:
    """Counts and dice of one proxy.

    Attributes:
        requests: received from the client.
        lost: answers cut before their first byte or in the middle.
        repeated: requests sent upstream twice, one after the other or at once.
        items_sent: item keys in all requests received, each as often as it came.
    """

    def __init__(self, upstream_port: int, *, loss: float, repetition: float, seed: int) -> None:
        self._upstream_port = upstream_port
        self._loss, self._repetition = loss, repetition
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.requests = self.lost = self.repeated = self.items_sent = 0

    def fate(self, body: bytes) -> tuple[str, str]:
        """How often the next request goes upstream ("once", "again", "at once") and what becomes of its answer."""
        with self._lock:
            self.requests += 1
            self.items_sent += len(_ITEM_KEY.findall(body))
            is_repeated, is_lost = self._dice.random() < self._repetition, self._dice.random() < self._loss
            self.repeated += is_repeated
            self.lost += is_lost
            times = self._dice.choice(("again", "at once")) if is_repeated else "once"
            return times, self._dice.choice(("nothing", "half")) if is_lost else "all"

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes, times: str) -> Answer:
        """The vendor's answer; of two, the second."""
        if times == "once":
            return self._ask(method, path, headers, body)
        twin = threading.Thread(target=self._ask, args=(method, path, headers, body))
        twin.start()
        if times == "again":
            twin.join()
        answer = self._ask(method, path, headers, body)
        twin.join()
        return answer

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream_port, timeout=60)
        try:
            upstream.request(method, path, body, headers)
            response = upstream.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            upstream.close()


def between(proxy: LossyProxy) -> AbstractContextManager[str]:
    """The proxy on loopback; yields its URL."""

    def respond(exchange: BaseHTTPRequestHandler, body: bytes) -> None:
        times, kept = proxy.fate(body)
        headers = {name: value for name, value in exchange.headers.items() if name.lower() not in _HOP}
        status, fields, content = proxy.ask(exchange.command, exchange.path, headers, body, times)
        exchange.close_connection = kept != "all"
        if kept == "nothing":
            return
        exchange.send_response_only(status)
        for name, value in fields:
            if name.lower() not in _HOP:
                exchange.send_header(name, value)
        exchange.end_headers()
        exchange.wfile.write(content if kept == "all" else content[: len(content) // 2])

    return serve_on_loopback(respond)
