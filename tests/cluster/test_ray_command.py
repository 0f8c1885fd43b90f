"""`vl2v-client sweep --engine ray` on a cluster that `ray start` made, of this machine alone, at `RAY_ADDRESS`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.client.fake_vendor import API_KEY, FakeVendor, served
from support.client.sweep_bench import METHODS, TRAINING, made_by
from support.vendor.live_parties import free_port

pytestmark = pytest.mark.timeout(3600)

STARTS = 6  # Ray does not come up at each try on a machine that is busy
PATIENCE = 300.0  # seconds for one of them
TARGET = "art"
WATCH = """
import time, ray
ray.init(log_to_driver=False)
while True:
    print(ray.available_resources().get("GPU", 0.0), flush=True)
    time.sleep(0.1)
"""
WORDS = (
    *(word for name, value in TRAINING.items() for word in ("--" + name.replace("_", "-"), str(value))),
    *("--target-domain", TARGET),
    *(word for method in METHODS for word in ("--method", method)),
)


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """A Ray of one host that says it has a GPU; yields the environment of those who join it, and ends it."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra `ray`: `make test-ray`")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word for: listen on 127.0.0.1 alone
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    for left in reversed(range(STARTS)):
        port, folder = free_port(), Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets need a short path
        head = start_head(port, folder, environment)
        try:
            if is_up(head, folder):
                yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
                return
            assert left, (folder / "said").read_text()
        finally:
            end(head)
            shutil.rmtree(folder, ignore_errors=True)


def start_head(port: int, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = ["start", "--head", "--block", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    words += ["--disable-usage-stats", "--num-cpus=2", "--num-gpus=1"]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def is_up(head: subprocess.Popen[bytes], folder: Path) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and head.poll() is None:
        if "Ray runtime started" in (folder / "said").read_text():
            return True
        time.sleep(0.5)
    return False


def end(head: subprocess.Popen[bytes]) -> None:
    """End the head and what it started: `ray stop` would end every Ray of this machine."""
    head.terminate()
    with suppress(subprocess.TimeoutExpired):
        head.wait(60)
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait(60)


def watch_gpus(cluster: Mapping[str, str]) -> subprocess.Popen[str]:
    """Return a process that writes how many GPUs of the cluster are free, from now on."""
    for _ in range(STARTS):
        watch = subprocess.Popen([sys.executable, "-c", WATCH], env=cluster, stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        if watch.stdout.readline() == "1.0\n":
            return watch
        watch.kill()
        watch.communicate()
    raise AssertionError("Ray does not answer")


def run_command(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `vl2v-client`, again where it says so of Ray."""
    for _ in range(STARTS):
        command = [sys.executable, "-m", "vl2v_client", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
        if "does not start or answer" not in done.stderr:
            break
    return done


def test_the_command_makes_the_same_bytes_on_the_cluster_at_ray_address(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path, cluster: dict[str, str]
) -> None:
    watch = watch_gpus(cluster)
    words = ["sweep", "--data", str(data), "--student", "tiny", "--views", "2", *WORDS]
    words += ["--out", str(tmp_path / "sweep"), "--yes", "--engine", "ray", "--gpus-per-run", "0.5"]
    try:
        with served(vendor) as url:
            known = {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(tmp_path / "client.db")}
            done = run_command(words, {**cluster, **known})
    finally:
        watch.terminate()
    free = {float(line) for line in watch.communicate()[0].split()}
    assert done.returncode == 0, done.stderr
    assert min(free) < 1.0, "the runs did not train on this cluster"
    assert free <= {0.0, 0.5, 1.0}
    made = made_by(tmp_path / "sweep")
    del made["report.json"]
    assert made == {name: alone[name] for name in alone if name.startswith(f"{TARGET}/seed0/")}
