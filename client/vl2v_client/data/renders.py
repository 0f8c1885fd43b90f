"""The rendered views of many images, in one file: decoded once, then read by every epoch of every stage."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError, DataError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.views import RENDERER_VERSION, View, load_rgb, render_view
from vl2v_contract.identity import canonical_json, sha256_hex

_FORMAT = 1


@dataclass(frozen=True)
class RenderStore:
    """Pixels of `K` views of each of `N` images.

    Attributes:
        pixels: `[N, K, S, S, 3]` uint8, mapped from the file, read-only.
        of: Names the pixels by what decides them.
    """

    pixels: NDArray[np.uint8]
    of: str = ""


def render_views(
    path: Path,
    samples: Sequence[Sample],
    views: Sequence[Sequence[View]],
    *,
    size: int,
    workers: int | None = None,
    progress: Progress = silent,
) -> RenderStore:
    """Open the render file at `path` if it holds exactly these views, else renders them into it.

    The file appears under its name only when it is whole, and the disk space is taken before the first image is
    rendered: `N * K * S * S * 3` bytes, 71 GB for one view of DomainNet's training images at 224. An image that has
    changed on disk (size or modification time) is rendered again, with all the others.

    Args:
        path: `NAME.u8`; a small JSON file lies beside it.
        samples: The images, `N`.
        views: `K` views for each of them, `K` the same for all.
        size: The teacher's input size.
        workers: Threads; as many as there are cores by default.
        progress: Gets every image.

    Raises:
        CacheError: The disk cannot hold the file, or the folder cannot be written.
        DataError: An image is broken; its name and the remedy are in the message.
    """
    if len(views) != len(samples):
        raise ValueError(f"{len(samples)} samples, but views for {len(views)}")
    count = len(views[0]) if views else 0
    if any(len(of_one) != count for of_one in views):
        raise ValueError("every sample needs the same number of views")
    shape = (len(samples), count, size, size, 3)
    name = {"format": _FORMAT, "shape": list(shape), "of": _fingerprint(samples, views)}
    card = path.with_suffix(".json")
    if not _holds(path, card, name, shape):
        with _writing(path.parent, int(np.prod(shape, dtype=np.int64))):
            _render(path, samples, views, shape, workers or os.cpu_count() or 1, progress)
            card.write_text(json.dumps(name))
    return RenderStore(_map(path, shape), str(name["of"]))


@contextmanager
def _writing(folder: Path, size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(folder, size_bytes) from error
        raise CacheError(f"{folder} cannot be written ({error.strerror}): use another folder") from error


def _render(
    path: Path,
    samples: Sequence[Sample],
    views: Sequence[Sequence[View]],
    shape: tuple[int, ...],
    workers: int,
    progress: Progress,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)  # views of other settings: the disk need not hold both
    partial = path.with_suffix(".partial")  # what a killed run left is written over
    try:
        _reserve(partial, int(np.prod(shape, dtype=np.int64)))
        _fill(partial, samples, views, shape, workers, progress)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fill(
    partial: Path,
    samples: Sequence[Sample],
    views: Sequence[Sequence[View]],
    shape: tuple[int, ...],
    workers: int,
    progress: Progress,
) -> None:
    if 0 in shape:
        return
    pixels = np.memmap(partial, dtype=np.uint8, mode="r+", shape=shape)

    def render(row: int) -> None:
        image = load_rgb(samples[row].path)
        for column, view in enumerate(views[row]):
            pixels[row, column] = render_view(image, view, shape[2])

    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes and resizes without the interpreter lock
        try:
            for done, _ in enumerate(pool.map(render, range(len(samples))), start=1):
                progress("render", done, len(samples))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    pixels.flush()


def _reserve(partial: Path, size_bytes: int) -> None:
    """Take the disk space now: a full disk under a memory map kills the process instead of raising."""
    if shutil.disk_usage(partial.parent).free < size_bytes:
        raise _disk_full(partial.parent, size_bytes)
    with partial.open("wb") as file:
        if size_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        file.truncate(size_bytes)


def _disk_full(folder: Path, size_bytes: int) -> CacheError:
    free_bytes = shutil.disk_usage(folder).free
    return CacheError(
        f"{folder} needs {size_bytes:,} bytes for the rendered views and has {free_bytes:,} free: "
        "make room, choose another folder, or use fewer views"
    )


def _map(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if 0 in shape:
        return np.zeros(shape, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _holds(path: Path, card: Path, name: dict[str, object], shape: tuple[int, ...]) -> bool:
    try:
        return bool(json.loads(card.read_text()) == name) and path.stat().st_size == int(np.prod(shape))
    except (OSError, ValueError):
        return False


def _fingerprint(samples: Sequence[Sample], views: Sequence[Sequence[View]]) -> str:
    """Name the pixels by what decides them: each file as the disk knows it, its views and the renderer."""
    lines: list[str] = [RENDERER_VERSION]
    for sample, of_one in zip(samples, views, strict=True):
        try:
            facts = sample.path.stat()
        except OSError as error:
            raise DataError(f"{sample.path} cannot be read ({error.strerror}): check that it exists") from error
        lines.append(f"{sample.path.resolve()} {facts.st_size} {facts.st_mtime_ns}")
        lines += [canonical_json(view.to_json()).decode() for view in of_one]
    return sha256_hex("\n".join(lines).encode())
