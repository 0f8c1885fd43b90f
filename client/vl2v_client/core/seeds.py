"""One seed, named children: every random choice has a stream of its own, so adding one moves no other."""

from __future__ import annotations

import hashlib

import numpy as np


def child_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` under `seed`; stable across versions and platforms."""
    text = "\n".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream called `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(child_seed(seed, *names)))
