"""Memory that is free is given back, also what lies between pieces that are still in use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from vl2v_vendor.host import return_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

kept, pieces = [], []
for number in range(2000):
    pieces.append(bytearray(100_000))
    kept.append(bytearray(2_000))
before = resident()
pieces.clear()
return_free_memory()
assert resident() < before - 100, (before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps it, and /proc alone shows it")
def test_what_was_freed_in_pieces_is_given_back() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
