"""The fixtures of version 0.1: where they lie, how a copy is made to work, and a vendor that serves their ledger."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures" / "v0.1"
MADE_AT = "http://127.0.0.1:47919"
"""Address of the vendor when the fixtures were made: the caches remember its model and prices under it."""

OFFLINE = {"VL2V_VENDOR_URL": MADE_AT, "VL2V_API_KEY": "vl2v_nobody"}
"""Variables of a client that finds no vendor, and goes by what its cache remembers."""

PLACE_THEN = Path("/var/tmp/vl2v-v0.1")
"""Where the data set lay. Checkpoints are of files at one absolute place, with their times of modification."""

READY_SECONDS = 120
_RECORDS = ("choice.json", "purchase.json", "used.json", "left_out.json", "images.json")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, (self.code, self.out, self.err)
        return json.loads(self.out)


Command = Callable[..., Done]
"""Runs a command line; keyword arguments are environment variables."""


def relocate(config_file: Path, data: Path) -> None:
    """Name the data set's place in a run's configuration, and the new configuration in its records.

    In format 1 a record belongs to the configuration whose SHA-256 it holds.
    """
    config = json.loads(config_file.read_text())
    assert config["data"] == str(PLACE_THEN / "shapes")
    before = _settings_sha(config)
    config["data"] = str(data.resolve())
    config_file.write_text(json.dumps(config, indent=2) + "\n")
    for name in _RECORDS:
        path = config_file.with_name(name)
        if path.exists():
            record = json.loads(path.read_text())
            assert (record["format"], record["of"]) == (1, before), path
            path.write_text(json.dumps({**record, "of": _settings_sha(config)}))


def _settings_sha(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def copy_ledger(home: Path) -> Path:
    """A vendor's data folder with a copy of the ledger, its secrets and its published heads."""
    home.mkdir()
    shutil.copyfile(FIXTURES / "vendor" / "ledger.sqlite", home / "vendor.db")
    for name in ("vendor-secrets.json", "vendor-published-heads.json"):
        shutil.copyfile(FIXTURES / "vendor" / name, home / name)
        (home / name).chmod(0o600)
    return home


@dataclass(frozen=True)
class ServedLedger:
    """A vendor of this version that serves the ledger.

    Attributes:
        keys: API keys by the name of their account.
    """

    url: str
    keys: dict[str, str]

    def ask(self, account: str, path: str, body: object = None) -> Any:
        """The JSON answer to an account's request; with a body it is a POST."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.keys[account]}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def environment(self, account: str, cache: Path) -> dict[str, str]:
        """Variables by which the client's commands find it."""
        return {"VL2V_VENDOR_URL": self.url, "VL2V_API_KEY": self.keys[account], "VL2V_CACHE": str(cache)}


@contextmanager
def data_at_its_place() -> Iterator[Path]:
    """The data set where it lay when the fixtures were made, and nobody else's use of that place meanwhile.

    Yields:
        The place, which is removed again: `shapes` and the students' first weights are in it.
    """
    try:
        lock = PLACE_THEN.with_name(f"{PLACE_THEN.name}.lock").open("w")
    except OSError as error:
        pytest.skip(f"{PLACE_THEN.parent} cannot be written ({error.strerror})")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(PLACE_THEN, ignore_errors=True)  # whoever left it there was killed: the lock is free
        if PLACE_THEN.exists() or PLACE_THEN.parent.resolve() != PLACE_THEN.parent:
            pytest.skip(f"{PLACE_THEN} is taken, or elsewhere on this system")
        try:
            with tarfile.open(FIXTURES / "folders.tar.xz") as archive:
                archive.extractall(PLACE_THEN, filter="data")
            yield PLACE_THEN
        finally:
            shutil.rmtree(PLACE_THEN, ignore_errors=True)


@contextmanager
def served_ledger(home: Path) -> Iterator[ServedLedger]:
    """A vendor on a copy of the ledger. It sells vectors made of digests, so that no start waits for a model."""
    copy_ledger(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VL2V_")}
    environment |= {"VL2V_VENDOR_DATA_DIR": str(home), "VL2V_VENDOR_ENCODER": "hash"}
    words = [sys.executable, "-m", "vl2v_vendor", "serve", "--port", str(port)]
    log = home.with_name("vendor.log")
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield ServedLedger(f"http://127.0.0.1:{port}", json.loads((FIXTURES / "vendor" / "api-keys.json").read_text()))
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"the vendor was not ready within {READY_SECONDS} s: {log.read_text()}")
