"""Targets that stay where they are stored, in half precision, until a step asks for some of them."""

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.teacher.text_classifier import unit_rows

_ROWS_AT_ONCE = 250
"""Samples that are scaled at a time, in float64: a thousand with four views of width 512 take 50 MB."""

_KEYS_AT_ONCE = 1_000
"""Vectors that are copied at a time."""


class VectorFile(Protocol):
    """Vectors by cache key, such as a `cache.purchase_file.PurchaseFile`."""

    @property
    def vectors(self) -> NDArray[np.float16]:
        """All of them, `[M, D]`."""

    def bought_rows(self, cache_keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key's vector, `[N]`; -1 for a key that has none."""


@dataclass(frozen=True)
class VectorsByKey:
    """Vectors `[M, D]` of a file that is mapped into memory, and the row of each by its key: a `VectorFile`."""

    vectors: NDArray[np.float16]
    places: Mapping[str, int]

    def bought_rows(self, cache_keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key's vector, `[N]`; -1 for a key that has none."""
        return np.fromiter((self.places.get(key, -1) for key in cache_keys), dtype=np.int64, count=len(cache_keys))


def copy_to_disk(
    fetch: Callable[[Sequence[str]], Mapping[str, NDArray[np.float16]]],
    keys: Sequence[str],
    *,
    dimension: int,
    folder: Path,
) -> VectorsByKey:
    """Copy vectors to a file without a name, which ends with the process, so that training maps it into memory.

    Args:
        fetch: Gives the vectors `[D]`, in any scale, of those keys that have one.
        keys: Keys of the vectors; one may be named twice.
        dimension: The teacher's width `D`.
        folder: Folder of the file.

    Raises:
        CacheError: The disk cannot hold them, or a vector has another width.
        DataError: A vector is zero or not finite.
    """
    wanted, places = list(dict.fromkeys(keys)), dict[str, int]()
    try:
        with TemporaryFile(dir=folder) as file:
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                for key, vector in fetch(wanted[start : start + _KEYS_AT_ONCE]).items():
                    if vector.shape != (dimension,):
                        found = f"the embedding of key {key[:12]} has shape {vector.shape}, not ({dimension},)"
                        raise CacheError(f"{found}: verify the cache")
                    unit_rows(vector)
                    file.write(vector.astype("<f2").tobytes())
                    places[key] = len(places)
            file.flush()
            if not places:
                return VectorsByKey(np.zeros((0, dimension), dtype=np.float16), places)
            # it stays as long as the map does
            return VectorsByKey(np.memmap(file, "<f2", "r", shape=(len(places), dimension)), places)
    except OSError as error:
        raise CacheError(
            f"{folder} cannot hold the embeddings ({error.strerror}): make room, then run again"
        ) from error


@dataclass(frozen=True)
class StoredFetch:
    """Gives some of the vectors of a file by their keys, as `teacher.targets.Fetch`, or their places in it.

    Attributes:
        file: The file.
        used: Keys of the vectors that it gives.
        others: Vectors by key that lie in memory, and in no file.
    """

    file: VectorFile
    used: Set[str]
    others: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)

    def __call__(self, keys: Sequence[str]) -> Mapping[str, NDArray[np.floating]]:
        """Return the vectors of those keys that it gives."""
        rows = self.rows(keys).tolist()
        found = {key: self.file.vectors[row] for key, row in zip(keys, rows, strict=True) if row >= 0}
        return found | {key: self.others[key] for key in keys if key in self.others}

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key's vector, `[N]`; -1 for a key that it gives no vector of."""
        is_used = np.fromiter((key in self.used for key in keys), dtype=np.bool_, count=len(keys))
        return np.where(is_used, self.file.bought_rows(keys), -1)


@dataclass(frozen=True)
class StoredVectors:
    """Vectors `[N, K, D]` float32 of unit norm, read when they are asked for: to the bit those of an array in memory.

    1.28 million images with ten views of width 512 take 26 GB in memory, for each process.

    Attributes:
        rows: Place of each vector, `[N, K]`; -1 is none, and reads as zero.
        vectors: `[M, D]` float16, in any scale; a file that is mapped into memory.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float16]

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, K, D)`."""
        return (*self.rows.shape, self.vectors.shape[1])

    def __getitem__(self, wanted: Any) -> EmbeddingMatrix:
        rows = self.rows[wanted]
        found = np.zeros((*rows.shape, self.vectors.shape[1]), dtype=np.float32)
        known = rows >= 0
        if known.any():
            found[known] = unit_rows(self.vectors[rows[known]])
            _release_pages(self.vectors)
        return found

    def of_views(self, chosen: NDArray[np.int64]) -> "StoredVectors":
        """Return the vectors of some views of each sample, by their number, `[N, J]`."""
        return StoredVectors(np.take_along_axis(self.rows, chosen, axis=1), self.vectors)

    def blocks(self) -> Iterator[EmbeddingMatrix]:
        """Yield the vectors of some samples at a time, `[n, K, D]`, in order."""
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            yield self[start : start + _ROWS_AT_ONCE]


def in_memory(vectors: NDArray[np.float32] | StoredVectors) -> NDArray[np.float32]:
    """Return vectors as an array, which stored ones are read into."""
    if not isinstance(vectors, StoredVectors):
        return vectors
    found, done = np.empty(vectors.shape, dtype=np.float32), 0
    for block in vectors.blocks():
        found[done : done + len(block)] = block
        done += len(block)
    return found


def _release_pages(vectors: NDArray[np.float16]) -> None:
    """Let go of the pages of a mapped file, which else count as this process's memory; the disk cache keeps them."""
    owner: Any = vectors
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
