"""A vendor on this machine, as a child process, and commands run against it as a person would type them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

BIN = Path(sys.executable).parent
CONSOLE = Console(highlight=False, soft_wrap=True)
READY_SECONDS = 120
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended."""
_PRODUCTION = ("VL2V_VENDOR_CONFIG", "VL2V_VENDOR_DATABASE_URL", "VL2V_VENDOR_MODEL", "VL2V_VENDOR_SECRETS_FILE")
"""What a shell may hold for a vendor that earns money; nothing here may touch it."""


@contextmanager
def local_vendor(
    home: Path,
    *,
    account: str,
    budget: int,
    options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[dict[str, str]]:
    """Run a vendor whose data are in `home`; yields the environment in which the client's commands find it.

    The account is made with `budget` queries unless `home` knows it already. The vendor's log is `home/vendor.log`.
    `settings` are the vendor's own, such as `{"VL2V_VENDOR_MAX_ITEMS": "16"}`.
    """
    with vendor_process(home, options, settings) as (environment, _process):
        environment["VL2V_API_KEY"] = _api_key(home / "api-key", environment, account, budget)
        yield environment


@contextmanager
def vendor_process(
    home: Path, options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """The same without an account: the environment lacks an API key; also yields the vendor's process."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if name not in _PRODUCTION}
    environment = (
        inherited
        | dict(settings or {})
        | {
            "VL2V_VENDOR_DATA_DIR": str(home / "vendor"),
            "VL2V_CACHE": str(home / "client.db"),
            "VL2V_VENDOR_URL": f"http://127.0.0.1:{port}",
        }
    )
    words = [str(BIN / "vl2v-vendor"), "serve", "--port", str(port), *options]
    with (home / "vendor.log").open("ab") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_ready(environment["VL2V_VENDOR_URL"], process, home / "vendor.log")
        yield environment, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def run(environment: dict[str, str], *words: str, show: bool = False) -> str:
    """Run a command; returns what it prints, or shows it. A failure ends the program."""
    if show:
        CONSOLE.print(f"[cyan]$ {shlex.join(words)}[/]")
    stdout = None if show else subprocess.PIPE
    done = subprocess.run([str(BIN / words[0]), *words[1:]], env=environment, stdout=stdout, text=True, check=False)
    if done.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode != 0:
        sys.exit(f"{shlex.join(words)} ended with {done.returncode}")
    return done.stdout or ""


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a benchmark's own words, and those after `--`, which are for a command of the client."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def _api_key(path: Path, environment: dict[str, str], account: str, budget: int) -> str:
    if not path.exists():
        words = ("vl2v-vendor", "keys", "create", "--account", account, "--budget", str(budget), "--json")
        secret = json.loads(run(environment, *words))["secret"]
        path.touch(mode=0o600)
        path.write_text(secret)
    return path.read_text()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text().splitlines()[-1:]
            sys.exit(f"the vendor ended with {process.returncode}: {' '.join(last)} (all of it in {log})")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"the vendor was not ready within {READY_SECONDS} s; see {log}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
