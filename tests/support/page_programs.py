"""The programs of a page's sandbox, called as `page_programs.py PROGRAM WORDS...`; see `support.page_sandbox`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

_SMALL_STEPS = ("--align-steps", "2", "--distill-steps", "2", "--evaluate-every", "2", "--batch-size", "4")
ADDED = {
    "shapes": ("--images-per-class", "3", "--size", "32"),
    "pilot": ("--yes",),
    "buy": ("--yes",),
    "distill": ("--yes", *_SMALL_STEPS),
    "sweep": ("--yes", *_SMALL_STEPS),
}
"""Command of the client: options that are added to it."""
READY_SECONDS = 240


def client(words: list[str]) -> None:
    """Run `vl2v-client`, which draws fewer shapes, trains for two steps, and takes yes for an answer."""
    from vl2v_client.cli import main

    sys.argv = ["vl2v-client", *words, *ADDED.get(words[0] if words else "", ())]
    main()


def vendor(words: list[str]) -> None:
    """Run `vl2v-vendor`; `serve` returns when the server is ready, and another `serve` or a restore stops it first."""
    if words[:1] == ["serve"] or words[:2] == ["ledger", "restore"]:
        _stop()
    if words[:1] == ["serve"]:
        _serve(words)
        return
    from vl2v_vendor.cli import main

    sys.argv = ["vl2v-vendor", *words]
    main()


def pip(words: list[str]) -> None:
    """Check that the extras that are to be installed exist."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = {extra for word in words for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")}
    unknown = asked - project["optional-dependencies"].keys()
    if unknown or not asked:
        sys.exit(f"pip {' '.join(words)}: no such extra: {', '.join(unknown) or 'none is named'}")


def watch(words: list[str]) -> None:
    """Run a server until it ends; the file that holds its process id is there meanwhile."""
    program = "from vl2v_vendor.cli import main; main()"
    with _pid_file().with_suffix(".log").open("ab") as log:
        server = subprocess.Popen([sys.executable, "-c", program, *words], stdout=log, stderr=log)
        _pid_file().write_text(str(server.pid))
        server.wait()
    _pid_file().unlink()


def _serve(words: list[str]) -> None:
    null = subprocess.DEVNULL
    command = [sys.executable, __file__, "watch", *words]
    watcher = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and watcher.poll() is None:
        try:
            with urllib.request.urlopen(f"{os.environ['VL2V_VENDOR_URL']}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"the vendor is not ready: {_pid_file().with_suffix('.log').read_text()[-2000:]}")


def _stop() -> None:
    if _pid_file().exists():
        os.kill(int(_pid_file().read_text()), signal.SIGTERM)
        while _pid_file().exists():
            time.sleep(0.1)


def _pid_file() -> Path:
    return Path(os.environ["SANDBOX_SERVER"])


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    {"vl2v-client": client, "vl2v-vendor": vendor, "pip": pip, "watch": watch}[program](rest)
