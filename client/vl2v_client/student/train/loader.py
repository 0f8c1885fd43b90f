"""What the next steps need, made by other threads while a step runs."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Loaded = TypeVar("_Loaded")

CUDA_WORKERS = 4
"""Threads that feed one GPU, where there are as many cores."""


def load_ahead(load: Callable[[int], _Loaded], steps: Iterable[int], workers: int) -> Generator[_Loaded, None, None]:
    """Yield `load(step)` of each step, in order; each worker loads one step ahead.

    Close the iterator to stop early. What a step gets is decided by `load` and the step, so the number of workers
    changes nothing; an exception of `load` comes out in its step's turn.

    Args:
        load: Called in any thread, for several steps at a time.
        steps: Numbers of the steps in the order in which they are taken.
        workers: Threads; 0 loads each step when it is asked for.
    """
    if workers == 0:
        yield from map(load, steps)
        return
    waiting: deque[Future[_Loaded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(load, step))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def default_workers(device: torch.device) -> int:
    """Return 0 on a CPU, whose cores the step itself uses; a few beside a GPU."""
    return min(CUDA_WORKERS, os.cpu_count() or 1) if device.type == "cuda" else 0
