"""Rendered views on disk, as many as a bound allows."""

import os
import weakref
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

PIXEL_BYTES = 2**30
"""Disk space that one run takes for rendered views."""


class PixelFile:
    """Temporary disk space for rendered views, up to a bound.

    The file has no name, so it ends with the process. What it cannot hold, because the disk is full or fails, is
    rendered again. It is read and written by system calls: a full disk under a memory map kills the process. Where the
    system has none that take an offset, as on Windows, it holds nothing.
    """

    def __init__(self, folder: Path, size_bytes: int = PIXEL_BYTES) -> None:
        self._folder = folder
        self._free_bytes = size_bytes
        self._end = 0
        self._descriptor = -1

    def take(self, count: int, each_bytes: int) -> tuple[int, int]:
        """Take room for at most `count` items; return its offset in bytes, and for how many items it is."""
        offset, granted = self._end, min(count, self._free_bytes // each_bytes)
        if not hasattr(os, "pwrite"):
            return offset, 0
        if granted and self._descriptor < 0:
            try:
                file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - open as long as this object lives
            except OSError:
                return offset, 0
            weakref.finalize(self, file.close)
            self._descriptor = file.fileno()
        self._end += granted * each_bytes
        self._free_bytes -= granted * each_bytes
        return offset, granted

    def write(self, data: NDArray[np.uint8], offset: int) -> bool:
        """Write contiguous bytes; return whether all of them are there."""
        try:
            return os.pwrite(self._descriptor, data.data, offset) == data.nbytes
        except OSError:
            return False

    def read(self, into: NDArray[np.uint8], offset: int) -> bool:
        """Fill a contiguous array with what was written; return whether it could be read."""
        try:
            return os.preadv(self._descriptor, [into.data], offset) == into.nbytes
        except OSError:
            return False
