"""The command: from nothing to the first sold vector, and back, with the real ledger and a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import TypeAdapter

from support.vendor.serving_shop import images, png
from vl2v_contract.records import Summary
from vl2v_contract.wire.embeddings import EmbeddingsResponse
from vl2v_vendor.cli import main
from vl2v_vendor.cli.server import Server, bind
from vl2v_vendor.web.connections import ConnectionLimits

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-m", "vl2v_vendor"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("VL2V_VENDOR_")}
    path = os.pathsep.join(filter(None, sys.path))
    return {**bare, "PYTHONPATH": path, "XDG_DATA_HOME": str(tmp_path), "VL2V_VENDOR_ENCODER": "hash"}


@contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its URL; killed if it is still there at the end."""
    server = subprocess.Popen([*COMMAND, "serve", *options], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r"ready\s+(http://\S+)", line):
                yield server, found.group(1)
                return
        pytest.fail("".join(lines))
    finally:
        server.kill()
        server.communicate(timeout=30)


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def test_what_is_loaded_is_never_walked_for_garbage_while_it_serves() -> None:
    """A full collection of it would stop every request for a tenth of a second."""
    frozen: list[int] = []

    async def answer_nothing(_scope: object, _receive: object, _send: object) -> None: ...

    before = gc.get_freeze_count()

    def announce() -> None:
        frozen.append(gc.get_freeze_count())
        asyncio.get_running_loop().call_soon(setattr, server, "should_exit", True)

    server = Server(uvicorn.Config(answer_nothing, lifespan="off", log_config=None), announce)
    with bind("127.0.0.1", 0, ConnectionLimits(8)) as listener:
        await server.serve(sockets=[listener])
    gc.unfreeze()
    assert frozen[0] > before + 10_000


def test_from_nothing_to_a_sold_vector_through_a_kill_to_a_clean_end(environment: dict[str, str]) -> None:
    body = images(png("red"), keys=["a" * 64])
    with serving(environment, "--port", "0") as (server, url):
        created = run(environment, "keys", "create", "--account", "demo", "--budget", "5", "--json")
        bearer = {"Authorization": f"Bearer {json.loads(created.stdout)['secret']}"}
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        first = EmbeddingsResponse.model_validate_json(
            httpx.post(f"{url}/v1/embeddings/images", json=body, headers=bearer).content
        )
        assert first.data[0].status == "billed"
        check_second_server_is_refused(environment, url)
        server.kill()
    with serving(environment, "--port", "0") as (server, url):
        again = httpx.post(f"{url}/v1/embeddings/images", json=body, headers=bearer)
        second = EmbeddingsResponse.model_validate_json(again.content)
        assert second.data[0].status == "replayed"
        assert second.data[0].embedding == first.data[0].embedding
        summary = TypeAdapter(Summary).validate_json(httpx.get(f"{url}/v1/billing/summary", headers=bearer).content)
        assert (summary.used_units, summary.remaining_units) == (1, 4)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0


def check_second_server_is_refused(environment: dict[str, str], url: str) -> None:
    """By its port if that is the same, by the database's lock otherwise; in one sentence."""
    port = url.rsplit(":", 1)[1]
    for chosen, fragment in ((port, "choose another port with --port"), ("0", "another server (process")):
        refused = run(environment, "serve", "--port", chosen)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert re.fullmatch("error: [^\n]*\n", refused.stderr), refused.stderr
        assert fragment in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["serve", "--precision", "fp8"], "precision"),
        (["serve", "--host", "192.0.2.1"], "no such address"),
        (["serve", "--port", "70000"], "port"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], fragment: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["vl2v-vendor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert re.fullmatch("error: [^\n]*\n", message)
    assert fragment in message


async def test_small_answers_are_sent_at_once() -> None:
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def meet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with bind("127.0.0.1", 0, ConnectionLimits(8)) as listener:
        async with await asyncio.start_server(meet, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            assert await seen == 1


def test_the_command_says_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vl2v-vendor", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert re.fullmatch(r"vl2v-vendor \S+\n", capsys.readouterr().out)
