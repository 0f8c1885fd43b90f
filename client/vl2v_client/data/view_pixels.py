"""The pixels of many images' views at one size, rendered when they are read, and kept as far as a bound allows."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.images import load_rgb
from vl2v_client.data.pixel_file import PixelFile
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import RENDERER_VERSION, View, canonical_view
from vl2v_contract.identity import canonical_json

Rows = NDArray[np.int64]


class ViewPixels:
    """Pixels of `K` views of each of `N` images at one size, `[N, K, S, S, 3]` uint8, read like an array.

    A view that is not kept is rendered when it is read: a file is decoded once for all its views that are read
    together, files in threads on every core. What is read is the same, to the bit, whatever is kept.

    Args:
        samples: The images, `N`.
        views: `K` views for each of them, `K` the same for all.
        size: Width and height `S`.
        file: Keeps the first views, as many as it has room for; `None` keeps nothing.

    Attributes:
        of: Names the pixels at any size: each file as the disk knows it, its views, and the renderer.
        shape: `(N, K, S, S, 3)`.

    Raises:
        DataError: An image cannot be read.
    """

    def __init__(
        self, samples: Sequence[Sample], views: Sequence[Sequence[View]], size: int, file: PixelFile | None = None
    ) -> None:
        if len(views) != len(samples):
            raise ValueError(f"{len(samples)} samples, but views for {len(views)}")
        if len({len(of_one) for of_one in views}) > 1:
            raise ValueError("every sample needs the same number of views")
        self._samples, self._views, self._file = samples, views, file or PixelFile(Path(), 0)
        self._stamps = [_stamp(sample.path) for sample in samples]
        self.of = _name(samples, views, self._stamps)
        self._of_size: dict[int, ViewPixels] = {}
        self._open(size)

    def _open(self, size: int) -> None:
        count = len(self._views[0]) if self._views else 0
        self.shape = (len(self._samples), count, size, size, 3)
        offset, granted = self._file.take(len(self) * count, 3 * size**2)
        self._offset, self._kept = offset, np.zeros(granted, dtype=np.bool_)
        self._of_size[size] = self

    def __len__(self) -> int:
        return len(self._samples)

    def at(self, size: int) -> "ViewPixels":
        """Return the same views at another size; asked again, the same object."""
        if size not in self._of_size:
            copy(self)._open(size)
        return self._of_size[size]

    def __getitem__(self, wanted: tuple[slice | Rows, int | Rows]) -> NDArray[np.uint8]:
        """Return views `[B, S, S, 3]`.

        Args:
            wanted: Rows, a slice or `[B]`, and the view of each: one for all, or `[B]`.

        Raises:
            DataError: An image is broken, or has changed since this object was made; it is named.
        """
        chosen, views = wanted
        rows = np.arange(len(self))[chosen] if isinstance(chosen, slice) else chosen
        pixels = np.empty((len(rows), *self.shape[2:]), dtype=np.uint8)
        missing: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        wanted_views = np.broadcast_to(views, rows.shape).tolist()
        for place, (row, view) in enumerate(zip(rows.tolist(), wanted_views, strict=True)):
            if not self._read(row, view, pixels[place]):
                missing[row][view].append(place)

        def render(row: int) -> None:
            self._render(row, missing[row], pixels)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without the interpreter lock
            list(pool.map(render, missing))
        return pixels

    def _render(self, row: int, places: Mapping[int, Sequence[int]], into: NDArray[np.uint8]) -> None:
        """Render the views that are the keys of `places` to those places of `into`."""
        path = self._samples[row].path
        image = load_rgb(path)
        if _stamp(path) != self._stamps[row]:
            raise DataError(f"{path} has changed since the run began: put it back as it was, then run again")
        for view, of_view in places.items():
            into[of_view] = render_view(image, self._views[row][view], self.shape[2])
            slot = self._slot(row, view)
            if slot < len(self._kept):
                rendered = into[of_view[0]]
                self._kept[slot] = self._file.write(rendered, self._offset + slot * rendered.nbytes)

    def _read(self, row: int, view: int, into: NDArray[np.uint8]) -> bool:
        slot = self._slot(row, view)
        is_kept = slot < len(self._kept) and self._kept[slot]
        return is_kept and self._file.read(into, self._offset + slot * into.nbytes)

    def _slot(self, row: int, view: int) -> int:
        return row * self.shape[1] + view


@dataclass(frozen=True)
class ViewSequence:
    """The first views of each image one after the other, `[N * count, S, S, 3]`, read some at a time.

    Attributes:
        pixels: `[N, K, S, S, 3]`.
        count: Number of the views of each image, from the first on.
    """

    pixels: ViewPixels | NDArray[np.uint8]
    count: int = 1

    def __len__(self) -> int:
        return len(self.pixels) * self.count

    def __getitem__(self, wanted: slice | Rows) -> NDArray[np.uint8]:
        places = np.arange(len(self))[wanted]
        return self.pixels[places // self.count, places % self.count]


def canonical_pixels(samples: Sequence[Sample], size: int, file: PixelFile | None = None) -> ViewPixels:
    """Return the canonical view of each image, `[N, 1, S, S, 3]`; see `ViewPixels`."""
    return ViewPixels(samples, [(canonical_view(),)] * len(samples), size, file)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it exists") from error
    return facts.st_size, facts.st_mtime_ns


def _name(samples: Sequence[Sample], views: Sequence[Sequence[View]], stamps: Sequence[tuple[int, int]]) -> str:
    digest = hashlib.sha256(RENDERER_VERSION.encode())
    for sample, of_one, (size_bytes, modified) in zip(samples, views, stamps, strict=True):
        digest.update(f"\n{sample.path.resolve()} {size_bytes} {modified}".encode())
        for view in of_one:
            digest.update(b"\n" + canonical_json(view.to_json()))
    return digest.hexdigest()
