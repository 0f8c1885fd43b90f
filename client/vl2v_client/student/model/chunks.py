"""Forward passes over many views, a chunk at a time; on a CPU every core has a chunk of its own.

Cores that share each operation of a pass wait for each other some hundred times in it; with a chunk each they never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def in_chunks(outputs: Callable[[slice], Tensor], count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield what a network says of `count` views, without gradients.

    Args:
        outputs: Runs the network on a slice of the views; on a CPU it is called in several threads at once.
        count: Views.
        size: Views in a chunk; the last may be smaller.
        device: Device of the network.

    Yields:
        The outputs of each chunk, in order.
    """
    cuts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    cores = torch.get_num_threads()
    threads = min(len(cuts), cores) if device.type == "cpu" else 1

    @torch.no_grad()
    def run(cut: slice) -> Tensor:
        return outputs(cut)

    if threads < 2:
        yield from map(run, cuts)
        return
    try:
        with ThreadPoolExecutor(threads, "chunk", initializer=lambda: torch.set_num_threads(1)) as pool:
            yield from pool.map(run, cuts)
    finally:
        torch.set_num_threads(cores)  # for this thread it never changed, but for those to come
