"""The device of a training run, and its processes as `torchrun` starts them: each takes its share of every step.

If one dies, `torchrun` ends the others; without it, they may wait for the dead as long as `STEP_TIMEOUT`.

Rank 0 alone buys, evaluates and writes; the others learn what it found. The run folder and the cache must lie
where every process sees them.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vl2v_client.core.errors import RunError, UsageError

STEP_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another one's shard of a step, or for an evaluation by rank 0."""

PATIENCE = timedelta(days=14)
"""How long the others wait for rank 0 to buy. If it dies, they hear of it at once."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`: free bytes that go back to the system, and a buffer's that do so on their own."""

_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "timed out", "Timed out")

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; the default is a process on its own.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        patient: Their group for `barrier`; `None` waits like any other step.
    """

    rank: int = 0
    count: int = 1
    patient: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """The one that buys, evaluates and writes."""
        return self.rank == 0

    def shard(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's share of a step's rows `[B]`: every `count`-th, a shard of every domain.

        Raises:
            UsageError: There are more processes than rows.
        """
        if len(rows) < self.count:
            raise UsageError(f"a step of {len(rows)} views has none for some of {self.count} processes: start fewer")
        return rows[self.rank :: self.count]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the same network; its gradients are averaged over all processes when they are made."""
        if self.count == 1:
            return network
        # static: a backbone may hold weights that its features do not need
        return DistributedDataParallel(network, broadcast_buffers=False, static_graph=True)

    def mean(self, terms: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Return scalars, means over this process's `share` of the step's batch, averaged over the whole batch."""
        if self.count == 1:
            return dict(terms)
        values = torch.stack([term.detach() for term in terms.values()]) * share
        dist.all_reduce(values)
        return dict(zip(terms, values, strict=True))

    def broadcast(self, compute: Callable[[], _Answer]) -> _Answer:
        """Return to every process what rank 0 computes: plain values, not tensors on a device."""
        if self.count == 1:
            return compute()
        answer: list[_Answer | None] = [compute() if self.is_first else None]
        dist.broadcast_object_list(answer, src=0)
        return cast(_Answer, answer[0])

    def as_first(self, network: nn.Module) -> None:
        """Give a network the weights that it has in rank 0: another processor may round what makes them otherwise."""
        if self.count > 1:
            for parameter in network.parameters():
                dist.broadcast(parameter.detach(), src=0)

    def barrier(self) -> None:
        """Wait until every process has come here, however long rank 0 needs."""
        if self.count > 1:
            dist.barrier(group=self.patient)


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Yield the processes that `torchrun` started together, or this one alone; inside itself, the same ones.

    Raises:
        RunError: On the way, another process was lost.
    """
    count = process_count()
    if count == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    with naming_lost_ranks():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=STEP_TIMEOUT)
        try:
            # a group's timeout holds for all that it does, so long waits have one of their own
            ranks = Ranks(dist.get_rank(), count, dist.new_group(backend="gloo", timeout=PATIENCE))
            yield ranks
            ranks.barrier()  # with torch 2.6, a process that leaves after rank 0 has ended may wait for ever
        finally:
            dist.destroy_process_group()


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch work with so many threads on the CPU until the block ends; `None` leaves it as it is."""
    before = torch.get_num_threads()
    if count is None:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def process_count() -> int:
    """Return how many processes train this run, as the environment says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this is rank 0 of a run, or a run of its own, as the environment says."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Say of an error that another process left behind what it is.

    Raises:
        RunError: In its place.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or any(mark in str(error) for mark in _LOST)):
            raise
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"another process of this run has ended or does not answer ({reason}): see what it said, then start all "
            "of them again; training goes on from the last checkpoint"
        ) from error


def resolve_device(name: str) -> torch.device:
    """Return a device by name: `auto` is CUDA if there is one, else the CPU; `cuda` is the device of this process.

    Raises:
        UsageError: There is no such device here.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        own = os.environ.get("LOCAL_RANK")
        return torch.device("cuda" if own is None else f"cuda:{own}")
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        here = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto: PyTorch finds no CUDA device"
        raise UsageError(f"training.device: there is no device {name!r} here; use {here}") from error
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


def keep_freed_memory() -> None:
    """Keep what a step frees for the next one, where the C library is glibc; it holds for the whole process.

    By itself it hands buffers beyond 32 MiB back to the system, whose fresh pages then cost each step on a CPU time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**30)
        mallopt(_M_MMAP_THRESHOLD, 2**28)
