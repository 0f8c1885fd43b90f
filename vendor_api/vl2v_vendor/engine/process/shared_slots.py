"""Memory that the server and its model process share: batches go in, vectors come out, nothing is pickled.

The memory has no name, so nothing is left behind whichever side is killed: the system frees it with the last process
that has it open. It is cut into slots, one per batch under way.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGNMENT: Final = 64
_HEADER_BYTES: Final = 64


class SharedFile:
    """A nameless file in memory. Pickled for a child that is being spawned, it is the same file there.

    It has no size at first: the child, which knows the model, decides how large it must be.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor: int | None = _open_nameless() if descriptor is None else descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._descriptor is None:
            raise ValueError("the shared memory is closed")
        return _inherit, (DupFd(self._descriptor),)

    def map(self, size_bytes: int) -> mmap.mmap:
        """Map the file at a size that both sides agree on, and close it: the map keeps it alive.

        Raises:
            ValueError: The file is closed.
        """
        if self._descriptor is None:
            raise ValueError("the shared memory is closed")
        os.ftruncate(self._descriptor, size_bytes)
        try:
            return mmap.mmap(self._descriptor, size_bytes)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; maps of it stay."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Sizes of the slots.

    Attributes:
        input_bytes: Size of the largest batch.
        output_bytes: Size of its vectors.
        count: Number of slots.
    """

    input_bytes: int
    output_bytes: int
    count: int = 2

    @property
    def size_bytes(self) -> int:
        """Size of the whole memory in bytes."""
        return _HEADER_BYTES + self.count * (_aligned(self.input_bytes) + _aligned(self.output_bytes))


class Slots:
    """The shared memory of one model process, as either side sees it.

    Args:
        memory: `layout.size_bytes` of it.
        layout: Layout of its slots.
    """

    def __init__(self, memory: mmap.mmap, layout: SlotLayout) -> None:
        self._memory = memory
        self._layout = layout
        self._abandoned = np.ndarray((layout.count,), np.uint8, memory)

    def input(self, slot: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return the batch in a slot, in place; raises ValueError if it is larger than a slot."""
        return self._view(slot, shape, dtype, 0, self._layout.input_bytes)

    def output(self, slot: int, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the vectors in a slot, in place; raises ValueError if they are larger than a slot."""
        return self._view(slot, shape, np.float32, _aligned(self._layout.input_bytes), self._layout.output_bytes)

    def set_abandoned(self, slot: int, is_abandoned: bool) -> None:
        """Note whether anybody still waits for the batch in a slot."""
        self._abandoned[slot] = is_abandoned

    def is_abandoned(self, slot: int) -> bool:
        """Return whether nobody waits for the batch in a slot any more."""
        return bool(self._abandoned[slot])

    def _view(self, slot: int, shape: Sequence[int], dtype: DTypeLike, start: int, limit_bytes: int) -> NDArray[Any]:
        size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size_bytes > limit_bytes:
            raise ValueError(f"an array of {size_bytes:,} bytes does not fit into a slot of {limit_bytes:,} bytes")
        stride = _aligned(self._layout.input_bytes) + _aligned(self._layout.output_bytes)
        return np.ndarray(tuple(shape), dtype, self._memory, offset=_HEADER_BYTES + slot * stride + start)


def _open_nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vl2v-batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _inherit(duplicate: Any) -> SharedFile:
    return SharedFile(duplicate.detach())


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
