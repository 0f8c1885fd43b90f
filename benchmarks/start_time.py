"""Time until a vendor listens and until it sells, as multiples of the time that `import open_clip` takes.

Each round imports open_clip in a new interpreter, then starts a vendor with the tiny teacher and a new ledger, on the
CPU. Files are in the page cache: a first round is not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from local_vendor import BIN, free_port
from result import Goal, write_result

POLL_SECONDS = 0.02
MOST_IMPORTS = 2.0
"""Until a vendor sells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    rounds = [take_round() for _ in range(1 + arguments.rounds)][1:]
    rows: list[dict[str, object]] = []
    for name, seconds in zip(("import open_clip", "listens", "sells"), zip(*rounds, strict=True), strict=True):
        ratios = [one / each[0] for one, each in zip(seconds, rounds, strict=True)]
        rows.append({"until": name, "seconds": round(median(seconds), 2), "imports": round(median(ratios), 2)})
        rows[-1] |= {"least": round(min(ratios), 2), "most": round(max(ratios), 2)}
    imports = float(str(rows[-1]["imports"]))
    goals = [
        Goal("imports of open_clip until the vendor sells", imports, f"<= {MOST_IMPORTS}", imports <= MOST_IMPORTS)
    ]
    notes = [f"The load average of the machine was {load_average:.1f} before."]
    write_result("start_time", rows, goals, out=arguments.out, notes=notes)


def take_round() -> tuple[float, float, float]:
    """Return seconds of the import, until a vendor listens, and until it sells."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import open_clip"], check=True)
    imported = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{(port := free_port())}"
        environment = os.environ | {"VL2V_VENDOR_DATA_DIR": folder, "VL2V_VENDOR_DEVICE": "cpu"}
        words = [str(BIN / "vl2v-vendor"), "serve", "--port", str(port)]
        began = time.monotonic()
        vendor = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            listens = wait_for(f"{url}/healthz", vendor) - began
            sells = wait_for(f"{url}/readyz", vendor) - began
        finally:
            vendor.send_signal(signal.SIGTERM)
            vendor.wait(timeout=30)
    return imported, listens, sells


def wait_for(url: str, vendor: subprocess.Popen[bytes]) -> float:
    """Return the time at which `url` answers 200."""
    while vendor.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.monotonic()
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    sys.exit(f"the vendor ended with {vendor.returncode}")


if __name__ == "__main__":
    main()
