"""The vendor's application in this process, on a real ledger, asked as a customer or the staff would ask.

An input is a line `method path key`, a line with the media types of body and answer, an empty line, and the body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from support.fuzz.subject import Fault, OneByOne
from vl2v_contract.wire.frames import unpack_answer
from vl2v_contract.wire.headers import BILLED_UNITS, JSON, OCTET_STREAM
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.domain.accounts import ALL_SCOPES, DEFAULT_SCOPES
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app

IMAGE_SIZE = 8
LIMITS: dict[str, Any] = {
    "hash_image_size": IMAGE_SIZE, "max_items": 8, "max_item_bytes": 100_000, "max_request_bytes": 500_000,
    "max_text_bytes": 1000, "max_pixels": 1_000_000, "recompute_items_per_minute": 10**6,
}  # fmt: skip
_BUDGETS = {"rich": 10**12, "poor": 0, "staff": 0}
_NO_KEY = "vl2v_none"
_FAST = Path("/dev/shm")
"""In memory, so that no disk slows the ledger down."""
_MOST_ANSWER_BYTES = 2_000_000
_MOST_REFUSAL_BYTES = 100_000


class _Errors(logging.Handler):
    """Keeps what the vendor logs as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"{record.getMessage()}: {record.exc_info[1] if record.exc_info else ''}")


class VendorSubject(OneByOne):
    """A vendor, a customer with money, one without, and the staff.

    Args:
        write: Makes an input.
    """

    def __init__(self, write: Callable[[random.Random], bytes]) -> None:
        self.make = write  # type: ignore[method-assign]
        self._home = tempfile.TemporaryDirectory(prefix="vl2v-fuzz-", dir=_FAST if _FAST.is_dir() else None)
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # as `set_up_logging` does
        self._settings = Settings(data_dir=Path(self._home.name), encoder="hash", **LIMITS)
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._app = self._loop.run_until_complete(self._open())
        self._engine = open_engine(self._settings.database)
        signer = load_or_create_secrets(self._settings.secrets_path).signer()
        self._accounts = SqlAccounts(self._engine, signer=signer, clock=SystemClock())
        self._secrets = {name: self._new_key(name, budget) for name, budget in _BUDGETS.items()} | {"nobody": _NO_KEY}
        self._told: Counter[str] = Counter()
        self._errors = _Errors()
        logging.getLogger("vl2v_vendor").addHandler(self._errors)

    def make(self, dice: random.Random) -> bytes:
        raise NotImplementedError

    def check(self, case: bytes) -> str:
        """Ask; hold the answer against what every answer must be.

        Raises:
            Fault: A 5xx, an error of the vendor's own in its log, or an answer of another form than documented.
        """
        head, _, body = case.partition(b"\n\n")
        line, _, kinds = head.partition(b"\n")
        method, path, key = line.decode().split(" ")
        kind, _, accept = kinds.partition(b" | ")
        sent = {b"host": b"vendor", b"content-length": str(len(body)).encode(), b"content-type": kind}
        sent |= {b"authorization": f"Bearer {self._secrets[key]}".encode(), b"accept": accept or JSON.encode()}
        status, told, answer = self._loop.run_until_complete(_ask(self._app, method, path, list(sent.items()), body))
        if self._errors.found:
            raise Fault(f"logged: {self._errors.found.pop()[:300]}")
        if status >= 500 or status < 200:
            raise Fault(f"status {status}: {answer[:300]!r}")
        if len(answer) > (_MOST_ANSWER_BYTES if status < 300 else _MOST_REFUSAL_BYTES):
            raise Fault(f"status {status} with {len(answer)} bytes")
        if status >= 400:
            _check_refusal(path, status, answer)
        else:
            self._told[key] += _billed(path, told, answer)
        return str(status)

    def finish(self) -> list[Fault]:
        """Hold the bill against what the answers said, and the ledger against itself; close."""
        faults = []
        for name in _BUDGETS:
            used = self._accounts.find_account(name).budget.used_units
            if used != self._told[name]:
                faults.append(Fault(f"{name} was billed {used} units, and told of {self._told[name]}"))
        logging.getLogger("vl2v_vendor").removeHandler(self._errors)
        self._loop.run_until_complete(self._stack.aclose())
        self._engine.dispose()
        self._loop.close()
        words = [sys.executable, "-m", "vl2v_vendor", "ledger", "verify"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["VL2V_VENDOR_DATA_DIR"] = self._home.name
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            faults.append(Fault(f"`ledger verify` ends with {done.returncode}: {done.stderr[-300:]}"))
        self._home.cleanup()
        return faults

    async def _open(self) -> FastAPI:
        return create_app(await self._stack.enter_async_context(open_services(self._settings, lambda *_: None)))

    def _new_key(self, name: str, budget_units: int) -> str:
        account = self._accounts.create_account(name, budget_units=budget_units)
        scopes = ALL_SCOPES if name == "staff" else DEFAULT_SCOPES
        _, secret = self._accounts.create_key(account, scopes=scopes)
        assert secret is not None
        return secret


async def _ask(
    app: FastAPI, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one request to an app, without a socket."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "server": ("vendor", 80), "client": ("127.0.0.1", 1), "state": {}, "headers": headers,
    }  # fmt: skip
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])
    told: dict[str, Any] = {"status": 0, "headers": []}
    pieces: list[bytes] = []

    async def receive() -> Any:
        message = next(sent, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.update(message)
        else:
            pieces.append(bytes(message.get("body", b"")))

    await app(scope, receive, send)
    return told["status"], {name.lower(): value for name, value in told["headers"]}, b"".join(pieces)


def _check_refusal(path: str, status: int, answer: bytes) -> None:
    problem = json.loads(answer)
    if path.partition("?")[0] == "/v1/embeddings":
        problem = problem["error"]
    elif problem["status"] != status or not problem["request_id"].startswith("req_"):
        raise Fault(f"status {status} with the problem {answer[:300]!r}")
    if not problem["code"]:
        raise Fault(f"a problem without a code: {answer[:300]!r}")


def _billed(path: str, told: dict[bytes, bytes], answer: bytes) -> int:
    """Return the units that an answer says were billed; both places that say so must agree."""
    if not path.startswith("/v1/embeddings"):
        return 0
    units = int(told.get(BILLED_UNITS.lower().encode(), b"0"))
    if path.partition("?")[0] == "/v1/embeddings":
        return units
    is_framed = told.get(b"content-type", b"").startswith(OCTET_STREAM.encode())
    if is_framed:
        head, vectors = unpack_answer(answer)
        billed, delivered = head.usage.billed_units, len(vectors)
        statuses = [item.status for item in head.data]
    else:
        body = json.loads(answer)
        billed, statuses = body["usage"]["billed_units"], [item["status"] for item in body["data"]]
        delivered = sum(item["embedding"] is not None for item in body["data"])
    if statuses.count("billed") != billed or delivered != len(statuses) - statuses.count("failed"):
        raise Fault(f"{billed} units billed and {delivered} vectors delivered of {statuses}")
    return int(billed)
