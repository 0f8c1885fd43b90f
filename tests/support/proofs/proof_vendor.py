"""A vendor under proof: the real command in a process of its own, seen through HTTP and Linux's `/proc`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from http_target import Target
from local_vendor import BIN, run, vendor_process

BUDGET_UNITS = 2**40
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ProofVendor:
    """A running vendor, its environment for commands, and its server's process."""

    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return self.environment["VL2V_VENDOR_URL"]

    def customer(self, account: str, budget_units: int = BUDGET_UNITS) -> Customer:
        """An account of its own, by default with a budget that does not end, and a key."""
        words = ("vl2v-vendor", "keys", "create", "--account", account, "--budget", str(budget_units), "--json")
        return Customer(self.url, str(json.loads(run(self.environment, *words))["secret"]))

    def verify_ledger(self) -> bool:
        """Whether `ledger verify` finds every chain and sum in order."""
        words = [str(BIN / "vl2v-vendor"), "ledger", "verify"]
        return subprocess.run(words, env=self.environment, capture_output=True, check=False).returncode == 0

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def seconds_until(self, *, ready: bool, within_seconds: float) -> float:
        """Wait for readiness to turn; infinite if it does not in time."""
        started = time.monotonic()
        while (waited := time.monotonic() - started) < within_seconds:
            if self.is_ready() == ready:
                return waited
            time.sleep(_POLL_SECONDS)
        return float("inf")

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as `/metrics` gives them."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def model_pid(self) -> int:
        """The model's process.

        Raises:
            LookupError: there is none right now.
        """
        found = [pid for pid in _children(self.process.pid) if b"spawn_main" in _read(pid, "cmdline")]
        if len(found) != 1:
            raise LookupError(f"{len(found)} model processes")
        return found[0]

    def stuck_seconds(self) -> float:
        """The silence after which the vendor replaces the model's process, by its own words at the start."""
        found = re.findall(r"stuck after ([\d.]+) seconds", self.log.read_text())
        if not found:
            raise LookupError(f"{self.log} does not tell when a model counts as stuck")
        return float(found[-1])

    def signal_model(self, number: signal.Signals) -> None:
        os.kill(self.model_pid(), number)

    def resident_bytes(self) -> int:
        return _memory(self.process.pid, "VmRSS")

    def peak_bytes(self) -> int:
        """The most that was resident since the last `reset_peak`."""
        return _memory(self.process.pid, "VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def open_files(self) -> Counter[str]:
        """How many sockets, pipes and files of each name the server holds."""
        found: Counter[str] = Counter()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found[os.readlink(link).split(":")[0]] += 1
        return found


@dataclass(frozen=True)
class Customer:
    """The bearer of one API key."""

    url: str
    secret: str

    def target(self) -> Target:
        """For the load generator: connections of its own."""
        return Target(self.url, {"Authorization": f"Bearer {self.secret}"})

    def used_units(self) -> int:
        """What the account was billed, by the vendor's own summary."""
        request = urllib.request.Request(
            f"{self.url}/v1/billing/summary", headers={"Authorization": f"Bearer {self.secret}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            summary: dict[str, Any] = json.load(answer)
        return int(summary["used_units"])


OpenVendor: TypeAlias = Callable[..., AbstractContextManager[ProofVendor]]
"""`open_vendor(MAX_ITEMS=16)`: a vendor of its own with these settings."""


class Size(Protocol):
    """`size("SECONDS", 5, 60)`: VL2V_PROOF_SECONDS if it is set, else the short or the full length."""

    def __call__(self, name: str, short: float, at_length: float, /) -> float: ...


@contextmanager
def proof_vendor(
    home: Path, options: Sequence[str], settings: Mapping[str, str] | None = None, *, log_level: str = "error"
) -> Iterator[ProofVendor]:
    """Serve until the block ends.

    Args:
        home: for its data and its log.
        options: of `vl2v-vendor serve`.
        settings: by name without the prefix, such as `{"MAX_ITEMS": "16"}`.
        log_level: what goes into the log.
    """
    named = {f"VL2V_VENDOR_{name}": value for name, value in (settings or {}).items()}
    with vendor_process(home, [*options, "--log-level", log_level], named) as (environment, process):
        yield ProofVendor(environment, process, home / "vendor.log")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _memory(pid: int, name: str) -> int:
    for line in _read(pid, "status").decode().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has ended")
