"""Views that planning has rendered, on their way to the purchase."""

import threading
from pathlib import Path

import numpy as np

from vl2v_client.cache.store import FileStamp
from vl2v_client.core.values import RGBImage
from vl2v_client.data.pixel_file import PixelFile


class RenderSpool:
    """Views that were rendered to be hashed, kept until they are sent, so that each is rendered once.

    What finds no room, or whose file has changed meanwhile, is rendered again.

    Args:
        folder: Folder on whose disk they lie, in a file without a name, which ends with this object.
        size_bytes: Bound.
    """

    def __init__(self, folder: Path, size_bytes: int = 2**28) -> None:
        self._file = PixelFile(folder, size_bytes)
        self._places: dict[str, tuple[int, FileStamp]] = {}
        self._lock = threading.Lock()

    def put(self, content_sha: str, pixels: RGBImage, stamp: FileStamp) -> None:
        """Keep a view, rendered from a file when it had this stamp."""
        with self._lock:
            offset, granted = self._file.take(1, pixels.nbytes)
        if granted and self._file.write(pixels, offset):
            self._places[content_sha] = offset, stamp

    def take(self, content_sha: str, size: int, stamp: FileStamp) -> RGBImage | None:
        """Return a view `[size, size, 3]` and forget it; None if it is not here, or its file has another stamp now."""
        offset, rendered_from = self._places.pop(content_sha, (0, None))
        if rendered_from != stamp:
            return None
        pixels = np.empty((size, size, 3), dtype=np.uint8)
        return pixels if self._file.read(pixels, offset) else None
