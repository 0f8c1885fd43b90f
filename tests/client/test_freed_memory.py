"""What a training step frees on a CPU is there for the next one: no fresh pages of the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from vl2v_client.student.train.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    buffers = [torch.ones(2**24) for _ in range(4)]  # 64 MiB each
for _ in range(12):  # the first few find places that fit
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_a_step_takes_its_buffers_from_what_the_last_one_freed() -> None:
    faults = {
        words: int(subprocess.check_output([sys.executable, "-c", PROGRAM, words])) for words in ("kept", "returned")
    }
    assert faults["kept"] < 0.1 * faults["returned"]
