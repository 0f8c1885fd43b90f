"""Write a purchase file; see `cache.purchase_file`."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.purchase_file import DTYPES, FORMAT, KINDS, as_digests
from vl2v_client.cache.store import EmbeddingCache, FileContent, FileStamp
from vl2v_client.core.errors import CacheError
from vl2v_client.core.files import replacing
from vl2v_client.core.values import TeacherModel

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class SharedPurchasePlan:
    """What a purchase file is made of, beside the cache.

    Attributes:
        of: Names what it was bought for.
        teacher: Model that answered.
        image_keys: Cache key of each of `N` image queries; equal content has equal keys.
        text_keys: Cache keys of the text queries.
        used: Cache keys of what is handed on; the vectors of all others are left out.
        views: Name of each image query's view, `N`.
        files: Contents of the files that runs will read.
    """

    of: str
    teacher: TeacherModel
    image_keys: Sequence[str]
    text_keys: Sequence[str]
    used: Set[str]
    views: Sequence[bytes]
    files: Mapping[FileStamp, FileContent]


def write_purchase_file(path: Path, plan: SharedPurchasePlan, cache: EmbeddingCache) -> None:
    """Write what the cache holds of a plan: whole and for good, or not at all.

    Raises:
        CacheError: The file cannot be written, or the cache not be read.
    """
    keys = sorted({*plan.image_keys, *plan.text_keys})
    arrays, count = _small_arrays(plan, keys, cache), len(keys)
    bought = arrays["bought"] = np.zeros(count, dtype="u1")

    def vectors() -> Iterator[bytes]:
        for start in range(0, count, _ROWS_AT_ONCE):
            some = keys[start : start + _ROWS_AT_ONCE]
            block, known = (
                np.zeros((len(some), plan.teacher.embedding_dim), dtype="<f2"),
                cache.get_many(plan.used & {*some}),
            )
            for row, key in enumerate(some):
                if key in known:
                    block[row], bought[start + row] = known[key], 1
            yield block.tobytes()

    def parts() -> Iterator[bytes]:  # a block at a time, for it may be larger than the memory
        for name in KINDS:
            if name == "vectors":
                yield from vectors()
            else:
                yield arrays[name].tobytes()

    shapes = {name: array.shape for name, array in arrays.items()} | {"vectors": (count, plan.teacher.embedding_dim)}
    facts = {"format": FORMAT, "of": plan.of, "teacher": json.dumps(asdict(plan.teacher))}
    _write(path, shapes, facts, parts())


def _small_arrays(plan: SharedPurchasePlan, keys: Sequence[str], cache: EmbeddingCache) -> dict[str, NDArray[Any]]:
    row_of = {key: row for row, key in enumerate(keys)}
    prices, texts = cache.records.prices(plan.used), set(plan.text_keys)
    views = dict(sorted(zip(plan.views, plan.image_keys, strict=True)))
    facts = [(stamp.size_bytes, stamp.changed_ns, one.width, one.height) for stamp, one in plan.files.items()]
    paths = b"".join(os.fsencode(stamp.path) + b"\0" for stamp in plan.files)
    return {
        "amounts": np.array([prices.get(key, -1) for key in keys], dtype="<i8"),
        "view_rows": np.array([row_of[key] for key in views.values()], dtype="<i8"),
        "file_facts": np.array(facts, dtype="<i8").reshape(-1, 4),
        "is_text": np.array([key in texts for key in keys], dtype="u1"),
        "keys": as_digests(bytes.fromhex("".join(keys))),
        "views": as_digests(b"".join(views)),
        "file_hashes": as_digests(bytes.fromhex("".join(one.file_sha for one in plan.files.values()))),
        "file_paths": np.frombuffer(paths, dtype="u1"),
    }


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], facts: dict[str, str], parts: Iterable[bytes]) -> None:
    """Write a safetensors file whose facts have the hash of its arrays."""
    digest = hashlib.sha256()
    try:
        with replacing(path) as file:
            header = _header(shapes, {**facts, "sha256": digest.hexdigest()})
            file.write(header)
            for part in parts:
                digest.update(part)
                file.write(part)
            file.seek(0)
            file.write(_header(shapes, {**facts, "sha256": digest.hexdigest()}))  # as long as the first
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error


def _header(shapes: Mapping[str, tuple[int, ...]], facts: Mapping[str, str]) -> bytes:
    described: dict[str, Any] = {"__metadata__": dict(facts)}
    end = 0
    for name, kind in KINDS.items():
        start, end = end, end + int(np.prod(shapes[name])) * np.dtype(DTYPES[kind]).itemsize
        described[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays lie on multiples of eight
    return len(text).to_bytes(8, "little") + text
