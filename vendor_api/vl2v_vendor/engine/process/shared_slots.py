"""Memory that the server and its model process share: batches go in, vectors come out, nothing large is pickled.

The memory has no name, so nothing is left behind whichever
side is killed: the system frees it with the last process that has it open. It is cut into slots, one per batch under
way.
"""

import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInput

_ALIGNMENT: Final = 64
_HEADER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Work:
    """To the child: encode the batch that lies in a slot."""

    id: int
    slot: int
    lane: Modality
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Bytes of the largest batch and of its vectors, and the number of slots."""

    input_bytes: int
    output_bytes: int
    count: int = 2

    @property
    def stride(self) -> int:
        """Size of a slot in bytes."""
        return _aligned(self.input_bytes) + _aligned(self.output_bytes)

    @property
    def size_bytes(self) -> int:
        """Size of the whole memory in bytes."""
        return _HEADER_BYTES + self.count * self.stride


def open_memory() -> Connection:
    """Open a nameless file in memory, without a size: the child, which knows the model, decides how large it must be.

    It is wrapped as a connection, since that is a descriptor that a process can be given when it is spawned.
    """
    if hasattr(os, "memfd_create"):
        return Connection(os.memfd_create("vl2v-batches"))
    with tempfile.TemporaryFile() as file:
        return Connection(os.dup(file.fileno()))


def map_memory(file: Connection, size_bytes: int) -> mmap.mmap:
    """Map a file at a size that both sides agree on, and close it: the map keeps it alive.

    Raises:
        OSError: The file is closed.
    """
    with file:
        os.ftruncate(file.fileno(), size_bytes)
        return mmap.mmap(file.fileno(), size_bytes)


class Slots:
    """The shared memory of one model process, as either side sees it.

    Attributes:
        abandoned: By slot, 1 if nobody waits for its batch any more.
    """

    def __init__(self, memory: mmap.mmap, layout: SlotLayout) -> None:
        self._memory = memory
        self._layout = layout
        # Every view is made from this one: `frombuffer` keeps the memory mapped while a view is alive.
        self._bytes = np.frombuffer(memory, np.uint8)
        self.abandoned = self._bytes[: layout.count]

    def input(self, work: Work) -> NDArray[Any]:
        """Return a batch in its slot, in place; raises ValueError if it is larger than a slot."""
        dtype = np.uint8 if work.lane == "image" else np.int64
        return self._view(work.slot, work.shape, dtype, 0, self._layout.input_bytes)

    def output(self, slot: int, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the vectors in a slot, in place; raises ValueError if they are larger than a slot."""
        return self._view(slot, shape, np.float32, _aligned(self._layout.input_bytes), self._layout.output_bytes)

    def fill(self, work: Work, items: Sequence[ModelInput]) -> None:
        """Copy the items of a batch into its slot, each padded with 0.

        Raises:
            ValueError: The batch does not fit there.
        """
        for row, item in zip(self.input(work), items, strict=True):
            row[: len(item)] = item
            row[len(item) :] = 0

    def close(self) -> None:
        """Unmap the memory, which also closes the descriptor that the map holds.

        Raises:
            BufferError: A view of a slot is still in use; the memory stays mapped.
        """
        self._bytes = self.abandoned = np.empty(0, np.uint8)
        self._memory.close()

    def _view(self, slot: int, shape: Sequence[int], dtype: DTypeLike, start: int, limit_bytes: int) -> NDArray[Any]:
        size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size_bytes > limit_bytes:
            raise ValueError(f"an array of {size_bytes:,} bytes does not fit into a slot of {limit_bytes:,} bytes")
        first = _HEADER_BYTES + slot * self._layout.stride + start
        return self._bytes[first : first + size_bytes].view(dtype).reshape(shape)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
