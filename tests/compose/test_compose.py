"""`docker compose up` as it is documented: bought from, killed, restarted, drained, moved and mended.

Each test runs on one vendor, and on three behind HAProxy and PgBouncer. They run in this order on one project.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.vendor.compose_stack import ROOT, Stack, docker
from support.vendor.live_parties import Client

pytestmark = pytest.mark.timeout(1800)

VIEWS = 8
UNITS = 2 * 32 * VIEWS + 4
"""Two source domains with 32 images of 40 that are not held out, and a text for each class."""


def test_containers_are_healthy_and_hardened(stack: Stack) -> None:
    services = ["vendor", "postgres", *(["haproxy", "pgbouncer"] if stack.is_replicated else [])]
    for service in services:
        for container in stack.inspect(service):
            host = container["HostConfig"]
            assert container["State"]["Health"]["Status"] == "healthy", service
            assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), service
            assert host["SecurityOpt"] == ["no-new-privileges:true"], service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
            published = [each for ports in host["PortBindings"].values() for each in ports]
            assert {each["HostIp"] for each in published} <= {"127.0.0.1"}, service
    assert len(stack.vendors()) == (3 if stack.is_replicated else 1)
    for service in {*services} - {"postgres"}:
        status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, service
        assert (facts["NoNewPrivs"], "0" in facts["Uid"].split()) == ("1", False), service
    assert "Read-only file system" in stack.compose("exec", "-T", "vendor", "touch", "/opt/x", check=False)


def test_a_key_is_made_and_the_host_buys_and_audits(
    stack: Stack, new_client: Callable[..., Client], shapes: Path
) -> None:
    client = new_client()
    finished = client.run(*_buy(shapes))
    assert finished.code == 0, finished.err
    _assert_paid_once(stack, client)


def test_a_vendor_killed_in_the_middle_of_a_purchase_is_waited_for(
    stack: Stack, new_client: Callable[..., Client], shapes: Path
) -> None:
    with _buying(new_client(), shapes) as (client, ended):
        killed = stack.vendors()[0]
        docker("kill", killed)
        time.sleep(2)  # nobody is there
        docker("start", killed)
        ended()
    _assert_paid_once(stack, client)
    stack.up()


def test_postgresql_restarts_in_the_middle_of_a_purchase(
    stack: Stack, new_client: Callable[..., Client], shapes: Path
) -> None:
    with _buying(new_client(), shapes) as (client, ended):
        stack.compose("restart", "postgres")
        ended()
    _assert_paid_once(stack, client)


def test_a_stop_waits_for_the_request_in_hand(stack: Stack, new_client: Callable[..., Client]) -> None:
    client = new_client()
    content = json.dumps({"items": [{"text": "a photo of a fish"}, {"text": "a photo of a key"}]}).encode()
    headers = {"Authorization": f"Bearer {client.api_key}", "Content-Type": "application/json"}
    headers["Content-Length"] = str(len(content))
    is_begun, is_stopping = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield content[:20]
        is_begun.set()
        assert is_stopping.wait(60)
        time.sleep(4)  # until the vendors have their signal
        yield content[20:]

    def sell() -> httpx.Response:
        url = f"{stack.url}/v1/embeddings/texts"
        return httpx.post(url, content=body(), headers=headers, timeout=120, trust_env=False)

    with ThreadPoolExecutor(1) as pool:
        sale = pool.submit(sell)
        assert is_begun.wait(60)
        time.sleep(1)  # until a vendor has the head
        is_stopping.set()
        stack.compose("stop", "vendor")
        assert sale.result(60).status_code == 200
    assert {container["State"]["ExitCode"] for container in stack.inspect("vendor")} == {0}
    stack.up()
    assert client.used_units() == 2


def test_down_and_up_keeps_the_data(stack: Stack, new_client: Callable[..., Client], shapes: Path) -> None:
    client = new_client()
    assert client.run(*_buy(shapes, views=2)).code == 0
    paid = client.used_units()
    stack.compose("down")
    stack.up()
    assert client.used_units() == paid > 0
    again = client.run("plan", "--data", shapes, "--target-domain", "sketch", "--views", "2", "--json")
    assert json.loads(again.out)["new_queries"] == 0
    assert client.run("audit").code == 0


def test_a_changed_password_of_the_database(stack: Stack, new_client: Callable[..., Client], shapes: Path) -> None:
    stack.compose("exec", "-T", "postgres", "psql", "-U", "vl2v", "-c", "ALTER USER vl2v PASSWORD 'second'")
    stack.configure(POSTGRES_PASSWORD="second")
    stack.up()
    client = new_client()
    assert client.run(*_buy(shapes, views=1)).code == 0
    assert client.run("audit").code == 0


def test_a_lost_volume_of_secrets_is_noticed_and_restored(
    stack: Stack, new_client: Callable[..., Client], shapes: Path
) -> None:
    client = new_client()
    assert client.run(*_buy(shapes, views=1)).code == 0
    file = "/var/lib/vl2v/vendor-secrets.json"
    backup = stack.compose("exec", "-T", "vendor", "cat", file)
    stack.compose("down")
    docker("volume", "rm", f"{stack.project}_vendor-data")
    stack.compose("up", "--detach", "--no-build", check=False)
    _wait_for(lambda: "does not hold the keys that signed this ledger" in stack.logs(), "no vendor refused to start")
    assert not stack.is_ready()
    stack.compose("stop", "vendor")
    write = f"umask 077; cat >{file}"
    stack.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "", "vendor", "sh", "-c", write, text=backup)
    stack.up()
    assert client.run("audit").code == 0
    stack.verify()


def test_a_model_of_ones_own_is_served_by_env(stack: Stack, new_client: Callable[..., Client], shapes: Path) -> None:
    models, assets = stack.folder / "models of ours", ROOT / "vendor_api" / "vl2v_vendor" / "assets"
    models.mkdir()
    (models / "own.json").write_bytes((assets / "tiny-teacher.json").read_bytes())
    (models / "own.safetensors").write_bytes((assets / "tiny-teacher.safetensors").read_bytes())
    stack.configure(
        MODELS="./models of ours",
        VL2V_VENDOR_MODEL_CONFIG_FILE="/models/own.json",
        VL2V_VENDOR_PRETRAINED="/models/own.safetensors",
        VL2V_VENDOR_IMAGE_MEAN="[0.5, 0.5, 0.5]",
        VL2V_VENDOR_IMAGE_STD="[0.5, 0.5, 0.5]",
        VL2V_VENDOR_ALLOWED_HOSTS='["127.0.0.1"]',
    )
    stack.up()
    client = new_client()
    bought = client.run(*_buy(shapes, views=1))
    assert bought.code == 0, bought.err
    assert client.run("audit").code == 0
    own, elsewhere = (
        httpx.get(f"{stack.url}/v1/models", headers=headers, timeout=60, trust_env=False)
        for headers in ({}, {"Host": "elsewhere"})
    )
    assert own.json()["data"][0]["id"] == "own"
    assert elsewhere.status_code == 400


def _buy(shapes: Path, *, views: int = VIEWS) -> tuple[str | Path, ...]:
    return ("buy", "--data", shapes, "--target-domain", "sketch", "--views", str(views), "--yes")


class _buying:
    """A purchase under way on the host, of which something has been charged and not all; `ended` waits for its end."""

    def __init__(self, client: Client, shapes: Path) -> None:
        self._client = client
        self._process = client.start(*_buy(shapes))

    def __enter__(self) -> tuple[Client, Callable[[], None]]:
        def begun() -> bool:
            assert self._process.exitcode is None, "it ended before anything happened"
            return self._client.used_units() > 0

        _wait_for(begun, "nothing was bought")
        return self._client, self._end

    def __exit__(self, *_raised: object) -> None:
        self._process.kill()
        self._process.join()

    def _end(self) -> None:
        self._process.join(900)
        assert self._process.exitcode == 0


def _assert_paid_once(stack: Stack, client: Client) -> None:
    assert client.used_units() == UNITS
    audit = client.run("audit", "--json")
    assert (audit.code, json.loads(audit.out)["matched"]) == (0, UNITS), audit.err
    stack.verify()


def _wait_for(reached: Callable[[], bool], else_say: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, else_say
        time.sleep(0.05)
