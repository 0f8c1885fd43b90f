"""The log: one line for one thing, with the request that it belongs to, and no secret."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vendor.serving_shop import images, png, running_vendor
from vl2v_vendor.observe.request_trace import LogFormat, set_up_logging

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"


class Log:
    """What was written to standard error since it was opened."""

    def __init__(self) -> None:
        self._stream = io.StringIO()

    def open(self, monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, level: str = "info") -> None:
        monkeypatch.setattr(sys, "stderr", self._stream)
        set_up_logging(level, log_format)

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log() -> Iterator[Log]:
    """A log to open; logging is as before afterwards."""
    root, package, hook = logging.getLogger(), logging.getLogger("vl2v_vendor"), threading.excepthook
    before = root.handlers[:], root.level, package.level
    yield Log()
    root.handlers[:], root.level = before[0], before[1]
    package.setLevel(before[2])
    logging.captureWarnings(False)
    threading.excepthook = hook


async def test_the_access_line_of_a_sale_says_who_bought_what_and_where_the_time_went(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.open(monkeypatch, "json")
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            answer = await client.post(
                IMAGES, json=images(png("red"), png("blue"), b"broken"), headers={"X-Request-Id": "theirs-7"}
            )
        assert answer.headers["x-request-id"] != "theirs-7"
        request_id = answer.headers["x-request-id"]
    [line] = log.objects
    assert (line["request_id"], line["client_request_id"]) == (request_id, "theirs-7")
    assert (line["api_key_id"], line["account_id"]) == ("key_000000000000", "acct_memory")
    assert (line["billed_units"], line["free_units"], line["failed_items"]) == (2, 0, 1)
    assert (line["level"], line["method"], line["path"], line["status"]) == ("info", "POST", IMAGES, 200)
    assert line["stage_milliseconds"]["commit"] > 0
    assert sum(line["stage_milliseconds"].values()) <= line["milliseconds"] + 0.2


async def test_a_refusal_is_logged_with_its_code_and_the_key_that_was_refused(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.open(monkeypatch, "json")
    async with running_vendor() as vendor:
        revoked = vendor.ledger.issue_key()
        vendor.ledger.revoke(revoked)
        async with vendor.client(revoked) as client:
            await client.post(IMAGES, json=images(png()))
        async with vendor.client() as client:
            await client.get(f"/{vendor.secret}")
    refused, lost = log.objects
    assert (refused["status"], refused["problem"], refused["api_key_id"]) == (401, "key_revoked", "key_000000000001")
    assert (lost["status"], lost["problem"]) == (404, "not_found")
    assert not re.search(r"vl2v_0{20}", "".join(log.lines))


@pytest.mark.parametrize("theirs", ["two words", "x" * 129, "ümlaut", ""])
async def test_a_foreign_id_that_could_disturb_the_log_is_left_out(
    log: Log, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    log.open(monkeypatch, "json")
    async with running_vendor() as vendor, vendor.client() as client:
        await client.get("/nowhere", headers={b"X-Request-Id": theirs.encode("latin-1")})
    [line] = log.objects
    assert "client_request_id" not in line


async def test_an_unexpected_exception_is_one_line_under_the_request_that_met_it(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.open(monkeypatch, "json")
    async with running_vendor() as vendor:

        async def burst(*_: object) -> None:
            raise RuntimeError("injected\nin two lines")

        vendor.ledger.offer = burst  # type: ignore[assignment, method-assign]
        async with vendor.client() as client:
            answer = await client.post(IMAGES, json=images(png()))
        assert answer.status_code == 500
        request_id = answer.headers["x-request-id"]
    failure, access = log.objects
    assert failure["request_id"] == access["request_id"] == request_id
    assert failure["api_key_id"] == "key_000000000000"
    assert "RuntimeError: injected\nin two lines" in failure["exception"]
    assert (access["level"], access["status"], access["problem"]) == ("warning", 500, "internal")


def test_lines_of_other_libraries_warnings_and_dying_threads_are_objects_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.open(monkeypatch, "json")
    logging.getLogger("uvicorn.error").error("of uvicorn's")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("of Python's", stacklevel=1)
        logging.captureWarnings(False)
    thread = threading.Thread(target=lambda: 1 / 0, name="doomed")
    thread.start()
    thread.join()
    uvicorn, python, death = log.objects
    assert uvicorn["message"] == "of uvicorn's"
    assert "of Python's" in python["message"]
    assert "doomed" in death["message"]
    assert "ZeroDivisionError" in death["exception"]
    assert all("request_id" not in line for line in log.objects)


async def test_a_path_cannot_forge_a_plain_line(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.open(monkeypatch, "plain")
    async with running_vendor() as vendor, vendor.client() as client:
        await client.get("/x%0a2026-11-24%2012:00:00,000%20INFO%20forged%1b[31m")
    [line] = log.lines
    assert r"GET /x\n2026-11-24 12:00:00,000 INFO forged\x1b[31m 404" in line


async def test_plain_lines_end_in_the_request_id_too(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.open(monkeypatch, "plain")
    async with running_vendor() as vendor:

        async def refuse() -> None:
            logging.getLogger("vl2v_vendor.test").warning("a readiness check speaks")

        vendor.services.readiness["ledger"] = refuse  # type: ignore[index]
        async with vendor.client() as client:
            request_id = (await client.get("/readyz")).headers["x-request-id"]
    [line] = log.lines
    assert line.endswith(f" WARNING a readiness check speaks {request_id}")


def test_a_server_with_a_json_log_writes_nothing_else(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("VL2V_", "OTEL_"))}
    environ |= {"XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environ |= {"VL2V_VENDOR_ENCODER": "hash", "VL2V_VENDOR_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "vl2v_vendor", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = []
        try:
            for line in server.stderr:
                lines.append(json.loads(line))
                if lines[-1]["step"] == "api key":
                    server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
        finally:
            server.kill()
    steps = [line["step"] for line in lines]
    assert steps == ["ledger", "model", "prices", "ready", "api key", "stopped"]
    assert re.match(r"ready http://127\.0\.0\.1:\d+ ", lines[3]["message"])
