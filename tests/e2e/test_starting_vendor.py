"""A vendor listens before its model is loaded: alive, not ready, selling nothing; its customers wait for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.vendor.live_parties import Vendor, free_port
from vl2v_client.api.client import VendorClient
from vl2v_contract.wire.errors import ErrorCode, Problem

ITEM_KEY = "a" * 64


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Vendor]:
    """A vendor that listens and waits for its gate."""
    vendor = Vendor(tmp_path / "vendor", free_port(), {"VL2V_VENDOR_ENCODER": "open_clip"})
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    words = [sys.executable, "-m", "support.vendor.gated_vendor", str(vendor.port)]
    with vendor.log.open("ab") as log:
        vendor.process = subprocess.Popen(words, env=vendor.environment | path, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while status_of(vendor, "/healthz") != 200:
            assert vendor.process.poll() is None, vendor.log.read_text()
            assert time.monotonic() < deadline, "the vendor did not listen within 60 s"
            time.sleep(0.05)
        yield vendor
    finally:
        vendor.process.kill()
        vendor.process.wait()


def status_of(vendor: Vendor, path: str) -> int:
    try:
        return httpx.get(f"{vendor.url}{path}").status_code
    except httpx.TransportError:
        return 0


def open_gate(vendor: Vendor, reason: str = "") -> None:
    hidden = vendor.home / "new-gate"
    hidden.write_text(reason)
    hidden.rename(vendor.home / "gate")


def test_while_the_model_loads_nothing_is_sold_and_a_customer_waits(starting: Vendor) -> None:
    secret = starting.create_key("early", 10)
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"items": [{"text": "a cat", "item_key": ITEM_KEY}]}
    ready = httpx.get(f"{starting.url}/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (503, {"model": "the model is being loaded"})
    refused = httpx.post(f"{starting.url}/v1/embeddings/texts", json=body, headers=headers)
    problem = Problem.model_validate_json(refused.content)
    assert (refused.status_code, problem.code, problem.retryable) == (503, ErrorCode.MODEL_UNAVAILABLE, True)
    assert refused.headers["x-model-loading"] == "true"
    assert "nothing was billed" in problem.detail
    assert refused.headers["x-request-id"] == problem.request_id
    assert refused.headers["retry-after"] == ready.headers["retry-after"] == "2"
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert (starting.home / "importing").exists()  # at the same time as the model process, which takes as long
    assert {status_of(starting, path) for path in ("/", "/v1/models", "/metrics", "/nowhere")} == {503}

    with VendorClient(starting.url, secret) as client, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.model)
        open_gate(starting)
        teacher = asked.result(60)
        assert status_of(starting, "/readyz") == 200
        assert client.summary().used_units == 0
        assert [item.status for item in client.embed_texts(["a cat"], [ITEM_KEY], teacher).items] == ["billed"]
        assert client.summary().used_units == 1
    assert starting.process is not None
    starting.process.terminate()
    assert starting.process.wait(30) == 0


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_sentence(starting: Vendor) -> None:
    open_gate(starting, "no such checkpoint, injected")
    assert starting.process is not None
    assert starting.process.wait(30) == 1
    assert starting.log.read_text().splitlines()[-1] == "error: no such checkpoint, injected"
    assert status_of(starting, "/healthz") == 0
