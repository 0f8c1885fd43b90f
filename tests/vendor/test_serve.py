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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter

from support.vendor.serving_shop import images, png
from support.vendor.vendor_in_process import vendor_settings
from vl2v_contract.records import Summary
from vl2v_contract.wire.embeddings import EmbeddingsResponse
from vl2v_vendor import bootstrap
from vl2v_vendor.cli import main, server
from vl2v_vendor.cli.server import bind
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.connections import ConnectionLimits
from vl2v_vendor.web.transport import LimitedListener

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


def serve_in_process(settings: Settings, listener: LimitedListener | None = None) -> None:
    """Serve until a signal comes, on a port of its own if there is no `listener`."""
    limits = ConnectionLimits(8)
    with listener or bind("127.0.0.1", 0, limits) as bound:
        asyncio.run(server._Foreground(settings, bound, limits, None, None).run())


def test_what_is_loaded_is_never_walked_for_garbage_while_it_serves(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full collection of it would stop every request for a tenth of a second."""
    frozen: list[int] = []
    before = gc.get_freeze_count()

    def announce(_: object) -> None:
        frozen.append(gc.get_freeze_count())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(server._Foreground, "_announce", announce)
    serve_in_process(vendor_settings(tmp_path, migrated_sqlite))
    gc.unfreeze()
    assert frozen[0] > before + 10_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_model_is_being_loaded_stops_at_once(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    async def load_for_ever(*_: object) -> None:
        await asyncio.sleep(0)
        signal.raise_signal(number)
        await asyncio.sleep(60)

    monkeypatch.setattr(bootstrap, "_open_model", load_for_ever)
    started = time.monotonic()
    serve_in_process(vendor_settings(tmp_path, migrated_sqlite))
    assert time.monotonic() - started < 30


def test_a_port_that_another_server_was_the_first_to_listen_at_is_refused_before_the_model(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    with bind("127.0.0.1", 0, ConnectionLimits(8)) as first:
        second = bind("127.0.0.1", first.getsockname()[1], ConnectionLimits(8))
        first.listen()
        with pytest.raises(server.CannotListen, match="another program uses it"):
            serve_in_process(vendor_settings(tmp_path, migrated_sqlite), second)


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
