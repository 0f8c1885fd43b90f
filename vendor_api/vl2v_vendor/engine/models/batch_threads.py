"""Processor threads for batches: a large batch runs as one part on each, a small one as operations shared by all.

Threads that share an operation wait for each other after every one of some hundreds in a forward pass, and if one of
them loses its core for a moment, all do. Parts wait once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

import numpy as np

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch

_FEWEST_ITEMS: Final = 2
"""In a part: below that a core alone is no faster than all cores are together."""


class BatchThreads:
    """As many threads as torch has, each of which computes alone.

    Args:
        threads: Number of torch's threads in the calling thread; with one, nothing is ever split.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model-part", initializer=_compute_alone)

    def encode(
        self, encode: Callable[[PixelBatch | TokenBatch], VectorBatch], batch: PixelBatch | TokenBatch
    ) -> VectorBatch:
        """Encode `[N, ...]` to `[N, D]`, in parts if they are large enough; no part is left running by an error."""
        if self._threads == 1 or len(batch) < self._threads * _FEWEST_ITEMS:
            return encode(batch)
        items = math.ceil(len(batch) / self._threads)
        parts = [self._pool.submit(encode, batch[first : first + items]) for first in range(0, len(batch), items)]
        wait(parts)
        return np.concatenate([part.result() for part in parts])


def _compute_alone() -> None:
    """Torch counts threads for each thread that calls it."""
    import torch

    torch.set_num_threads(1)
