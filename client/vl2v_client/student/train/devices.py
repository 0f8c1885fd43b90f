"""The device of a training run, and the settings that make its results reproducible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vl2v_client.core.errors import UsageError
from vl2v_client.student.train.distributed import local_device


def resolve_device(name: str) -> torch.device:
    """Return a device by name: `auto` is CUDA if there is one, else the CPU; `cuda` is the device of this process.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "auto" or (name == "cuda" and torch.cuda.is_available()):
        return local_device() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {name!r} here: use cpu, cuda, or auto") from error
    return device


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Use deterministic kernels on a CPU, and a random stream of the run's own, until the block ends."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
