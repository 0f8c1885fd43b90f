"""How long an audit of a million items takes, and how much memory: the real vendor, the real command, real books.

Run without arguments: 100,000, 300,000 and 1,000,000 items, bought 32 at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from audit_books import write_books
from local_vendor import BIN, vendor_process
from result import Goal, write_result

SIZES = (100_000, 300_000, 1_000_000)
ITEMS_PER_REQUEST = 32
LONGEST_SECONDS = 60
MOST_GROWTH_MIB = 30
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(items: int, folder: Path) -> dict[str, object]:
    """Write the books, serve them, audit them."""
    home = folder / str(items)
    secret = write_books(home, items=items, items_per_request=ITEMS_PER_REQUEST)
    with vendor_process(home, ("--encoder", "hash")) as (environment, vendor):
        before = _cpu_seconds(vendor.pid)
        seconds, cpu_seconds, peak_mib = _audit(environment | {"VL2V_API_KEY": secret}, home / "report.json")
        vendor_seconds = _cpu_seconds(vendor.pid) - before
        vendor_mib = _peak_mib(vendor.pid)
    report = json.loads((home / "report.json").read_text())
    assert (report["matched"], report["clean"]) == (items, True), report
    return {
        "items": items,
        "entries": report["entries"],
        "seconds": round(seconds, 2),
        "client_cpu_seconds": round(cpu_seconds, 2),
        "vendor_cpu_seconds": round(vendor_seconds, 2),
        "client_peak_mib": round(peak_mib, 1),
        "vendor_peak_mib": round(vendor_mib, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(items, Path(folder)) for items in sorted(arguments.items)]
    longest, growth = rows[-1], float(str(rows[-1]["client_peak_mib"])) - float(str(rows[0]["client_peak_mib"]))
    seconds = float(str(longest["seconds"]))
    goals = [
        Goal(f"audit of {longest['items']:,} items", seconds, f"< {LONGEST_SECONDS} s", seconds < LONGEST_SECONDS),
        Goal("growth of the client's peak memory, MiB", round(growth, 1), f"< {MOST_GROWTH_MIB}",
             growth < MOST_GROWTH_MIB),
    ]  # fmt: skip
    write_result("audit_million", rows, goals, out=arguments.out)


def _audit(environment: Mapping[str, str], report: Path) -> tuple[float, float, float]:
    """Run the command; returns its wall time, its CPU time and its peak memory in MiB."""
    started = time.perf_counter()
    with report.open("wb") as out:
        process = subprocess.Popen([str(BIN / "vl2v-client"), "audit", "--json"], env=dict(environment), stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"the audit ended with {process.returncode}:\n{report.read_text()[:2000]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
