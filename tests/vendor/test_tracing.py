"""Traces: off unless asked for, one sentence when they cannot be made, and the request's stages when they can."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.vendor.serving_shop import Vendor, images, png, running_vendor
from vl2v_vendor.observe.telemetry import TracingUnavailable, open_tracing
from vl2v_vendor.web.app import create_app

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_there_are_no_traces_unless_they_are_asked_for(environ: dict[str, str]) -> None:
    assert open_tracing(environ, version="1") is None


@pytest.mark.parametrize(
    ("environ", "fragment"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER is `console`"),
        ({ENDPOINT: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "not by grpc"),
    ],
)
def test_what_we_cannot_do_is_refused_at_the_start(environ: dict[str, str], fragment: str) -> None:
    with pytest.raises(TracingUnavailable, match=fragment):
        open_tracing(environ, version="1")


def test_a_server_that_cannot_trace_does_not_start(tmp_path: Path) -> None:
    environ = {**os.environ, "OTEL_TRACES_EXPORTER": "console", "XDG_DATA_HOME": str(tmp_path)}
    environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "VL2V_VENDOR_ENCODER": "hash"}
    command = [sys.executable, "-m", "vl2v_vendor", "serve", "--port", "0"]
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert re.fullmatch("error: OTEL_TRACES_EXPORTER is `console`[^\n]*\n", refused.stderr)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.delitem(sys.modules, "vl2v_vendor.observe.otlp_tracing", raising=False)
    for name in [name for name in sys.modules if name.startswith(("opentelemetry.sdk.", "opentelemetry.exporter"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TracingUnavailable, match="pip install opentelemetry-sdk"):
        open_tracing({ENDPOINT: "http://collector:4318"}, version="1")


def test_a_server_without_traces_does_not_import_the_sdk() -> None:
    code = (
        "import sys, vl2v_vendor.cli.server as server; assert server.open_tracing({}, version='1') is None; "
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Recorder:
    """The application with traces into memory."""

    def __init__(self, vendor: Vendor) -> None:
        memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        from vl2v_vendor.observe.otlp_tracing import OtlpTracing

        self._exporter = memory.InMemorySpanExporter()
        self.tracing = OtlpTracing("7.0", SimpleSpanProcessor(self._exporter))
        vendor.app = create_app(vendor.services, tracing=self.tracing)

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())


async def test_a_sale_is_a_span_with_a_child_for_each_stage_below_the_callers_span() -> None:
    pytest.importorskip("opentelemetry.sdk")

    async with running_vendor() as vendor:
        recorder = Recorder(vendor)
        async with vendor.client() as client:
            answer = await client.post(IMAGES, json=images(png()), headers={"traceparent": PARENT})
        *stages, request = recorder.spans
        assert request.name == f"POST {IMAGES}"
        assert request.kind.name == "SERVER"
        assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == tuple(PARENT.split("-")[1:3])
        assert request.attributes["http.response.status_code"] == 200
        assert request.attributes["vl2v.request_id"] == answer.headers["x-request-id"]
        assert request.attributes["vl2v.account_id"] == "acct_memory"
        assert request.attributes["vl2v.billed_units"] == 1
        assert request.resource.attributes["service.name"] == "vl2v-vendor"
        assert request.resource.attributes["service.version"] == "7.0"
        named = [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")]
        assert {span.name for span in stages} == set(named) - {"total"}
        for span in stages:
            assert span.parent.span_id == request.context.span_id
            assert request.start_time <= span.start_time <= span.end_time <= request.end_time
        in_order = sorted(stages, key=lambda span: span.start_time)
        for earlier, later in pairwise(in_order):
            assert earlier.end_time <= later.start_time + 1000  # nanoseconds; floats are rounded


async def test_a_refusal_is_no_error_of_ours_and_a_failure_is() -> None:
    pytest.importorskip("opentelemetry.sdk")

    async with running_vendor() as vendor:

        async def burst(*_: object) -> None:
            raise RuntimeError("injected")

        recorder = Recorder(vendor)
        async with vendor.client("vl2v_wrong") as client:
            await client.post(IMAGES, json=images(png()))
        vendor.ledger.offer = burst  # type: ignore[assignment, method-assign]
        async with vendor.client() as client:
            await client.post(IMAGES, json=images(png()))
        refused, failed = [span for span in recorder.spans if span.kind.name == "SERVER"]
        assert refused.parent is None
        assert (refused.status.status_code.name, refused.attributes["vl2v.problem"]) == ("UNSET", "unauthenticated")
        assert (failed.status.status_code.name, failed.attributes["error.type"]) == ("ERROR", "internal")
        assert "injected" not in str(failed.attributes)


async def test_an_unsampled_trace_costs_no_spans_and_a_broken_traceparent_is_a_new_trace() -> None:
    pytest.importorskip("opentelemetry.sdk")

    async with running_vendor() as vendor:
        recorder = Recorder(vendor)
        async with vendor.client() as client:
            await client.get("/healthz", headers={"traceparent": f"{PARENT[:-2]}00"})
            assert recorder.spans == []
            await client.get("/healthz", headers={"traceparent": "00-broken"})
        [span] = recorder.spans
        assert span.parent is None


async def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
    sending, answered = threading.Event(), threading.Event()

    def wait_for_the_collector(*_: object) -> None:
        sending.set()
        answered.wait()

    monkeypatch.setattr(exporter, "export", wait_for_the_collector)
    monkeypatch.setattr("vl2v_vendor.observe.otlp_tracing._CLOSING_SECONDS", 0.2)

    try:
        async with running_vendor() as vendor:
            tracing = open_tracing({ENDPOINT: "http://collector:4318"}, version="1")
            assert tracing is not None
            vendor.app = create_app(vendor.services, tracing=tracing)
            async with vendor.client() as client:
                assert (await client.post(IMAGES, json=images(png()))).status_code == 200
            tracing.close()
        assert sending.wait(timeout=10)
    finally:
        answered.set()
    for thread in threading.enumerate():
        if thread.name == "otel-close":
            thread.join()
