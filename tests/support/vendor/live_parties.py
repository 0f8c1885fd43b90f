"""A real vendor in a process of its own, and the real command lines of both sides, each in another one."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from support.forked import run_forked, start_forked

BIN = Path(sys.executable).parent


@dataclass
class Finished:
    """A command that has ended."""

    code: int | None
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


@dataclass
class Vendor:
    """A vendor that sells vectors made of digests, so that no start waits for a model.

    `max_files` is how many files its process may have open, if not as many as this one.
    """

    home: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    max_files: int | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home.parent / f"{self.home.name}.log"

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VL2V_")}
        return clean | {"VL2V_VENDOR_DATA_DIR": str(self.home), "VL2V_VENDOR_ENCODER": "hash", **self.settings}

    def start(self) -> None:
        words = [str(BIN / "vl2v-vendor"), "serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, env=self.environment, stdout=log, stderr=log, preexec_fn=self._limit_files
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, "the vendor ended"
                time.sleep(0.05)
        raise AssertionError("the vendor was not ready within 60 s")

    def _limit_files(self) -> None:
        if self.max_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.max_files, self.max_files))

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def command(self, *words: str) -> Finished:
        return run_program("vl2v-vendor", words, self.environment)

    def create_key(self, account: str, budget: int) -> str:
        made = self.command("keys", "create", "--account", account, "--budget", str(budget), "--json")
        assert made.code == 0, made.err
        return str(json.loads(made.out)["secret"])


@dataclass
class Client:
    """One client: a cache of its own and a key at a vendor."""

    vendor: Vendor
    cache: Path
    api_key: str

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VL2V_")}
        return clean | {
            "VL2V_VENDOR_URL": self.vendor.url,
            "VL2V_API_KEY": self.api_key,
            "VL2V_CACHE": str(self.cache),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *words: str | Path, **extra: str) -> Finished:
        return run_program("vl2v-client", [str(word) for word in words], self.environment | extra)

    def start(self, *words: str | Path) -> ForkServerProcess:
        """Start a command in the background, to be killed."""
        nowhere = Path(os.devnull)
        return start_forked("vl2v-client", [str(word) for word in words], self.environment, nowhere, nowhere)

    def summary(self) -> dict[str, int]:
        request = urllib.request.Request(
            f"{self.vendor.url}/v1/billing/summary", headers={"Authorization": f"Bearer {self.api_key}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, int] = json.load(answer)
            return found

    def used_units(self) -> int:
        return self.summary()["used_units"]


def run_program(name: str, words: list[str] | tuple[str, ...], environment: dict[str, str]) -> Finished:
    done = Finished(*run_forked(name, words, environment))
    assert "Traceback" not in done.err + done.out, done.err
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
