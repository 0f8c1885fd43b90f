"""The whole road on one machine, as its users type it: sell, buy, distil, evaluate, audit.

    python scripts/demo.py [--dir demo] [--target sketch] [--seed 0]

Starts a vendor with the tiny teacher on a free port, makes the `shapes` data set, and runs the client's commands
against it. Nothing is downloaded. Everything is left in --dir to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

BIN = Path(sys.executable).parent
CONSOLE = Console(highlight=False)
READY_SECONDS = 120


def main() -> None:
    arguments = parse_arguments()
    home = arguments.dir.resolve()
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    environment = os.environ | {
        "VL2V_VENDOR_DATA_DIR": str(home / "vendor"),
        "VL2V_CACHE": str(home / "client.db"),
        "VL2V_VENDOR_URL": f"http://127.0.0.1:{free_port()}",
    }
    started = time.monotonic()
    with vendor(environment, home):
        account = run(
            "A key with a budget of 5,000 queries.",
            "vl2v-vendor",
            environment,
            "keys",
            "create",
            "--account",
            "demo",
            "--budget",
            "5000",
            "--json",
        )
        environment["VL2V_API_KEY"] = json.loads(account)["secret"]
        client(environment, "Ten classes in four styles, drawn on the spot.", "shapes", str(home / "shapes"))
        data = ["--data", str(home / "shapes"), "--target-domain", arguments.target, "--seed", str(arguments.seed)]
        client(environment, "What it will cost, before a query is spent.", "plan", *data)
        client(
            environment,
            f"Buy, align, distil; '{arguments.target}' is never seen. ERM is the row to beat.",
            "distill",
            *data,
            "--baseline",
            "erm",
            "--out",
            str(home / "run"),
            "--yes",
        )
        client(
            environment,
            "Score the unseen style; the teacher's own row costs one query per image.",
            "evaluate",
            str(home / "run"),
            "--teacher",
            "--yes",
        )
        client(environment, "Check the vendor's bill against our own books.", "audit")
    CONSOLE.print((home / "run" / "report.md").read_text(), markup=False)
    CONSOLE.print(f"[green]Done in {time.monotonic() - started:.0f} s.[/] Look around in {home}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("demo"), help="where everything goes; emptied first")
    parser.add_argument("--target", default="sketch", help="the style that nobody trains on")
    parser.add_argument("--seed", type=int, default=0, help="of views, sampling and initialisation")
    return parser.parse_args()


def client(environment: dict[str, str], why: str, *words: str) -> None:
    run(why, "vl2v-client", environment, *words, show=True)


def run(why: str, program: str, environment: dict[str, str], *words: str, show: bool = False) -> str:
    """Run a command as a person would, its output shown or returned; a failure ends the demo."""
    CONSOLE.print(f"\n[bold]{why}[/]\n[cyan]$ {shlex.join([program, *words])}[/]", soft_wrap=True)
    done = subprocess.run(
        [str(BIN / program), *words], env=environment, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"demo: {program} {words[0]} ended with {done.returncode}")
    return done.stdout or ""


@contextmanager
def vendor(environment: dict[str, str], home: Path) -> Iterator[None]:
    """A vendor that runs while the block does; its log is in `home/vendor.log`."""
    port = environment["VL2V_VENDOR_URL"].rsplit(":", 1)[1]
    words = ["serve", "--port", port]
    CONSOLE.print(f"[bold]A vendor, with nothing configured.[/]\n[cyan]$ vl2v-vendor {shlex.join(words)} &[/]")
    with (home / "vendor.log").open("wb") as log:
        process = subprocess.Popen([str(BIN / "vl2v-vendor"), *words], env=environment, stdout=log, stderr=log)
    try:
        wait_until_ready(environment["VL2V_VENDOR_URL"], process, home / "vendor.log")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"demo: the vendor ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"demo: the vendor was not ready within {READY_SECONDS} s; see {log}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
