"""What was bought for several runs or processes, as one file that all of them map into memory, on any host.

It is written once the purchase is done, so that none of them needs a vendor or the cache, which SQLite cannot share
across hosts. Vectors are as the cache has them, in half precision, to the bit. Its format is safetensors', with these
arrays, of `M` distinct vectors of width `D`, `V` distinct views and `F` files:

    amounts      [M] int64       price of each vector in micro-units; -1 where none was paid
    view_rows    [V] int64       row of each view's vector
    file_facts   [F, 4] int64    size in bytes, time of the last change, width and height of each file
    vectors      [M, D] float16  zero where none was bought
    bought       [M] uint8       whether there is a vector
    is_text      [M] uint8       whether it is a text's
    keys         [M, 32] uint8   cache keys, sorted
    views        [V, 32] uint8   names of the views, from `planning.queries.view_keys`, sorted
    file_hashes  [F, 32] uint8   SHA-256 of each file
    file_paths   [...] uint8     absolute paths, each ended by a zero
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from vl2v_client.cache.records import Paid
from vl2v_client.cache.store import FileContent, FileStamp
from vl2v_client.core.deliveries import HalfVector
from vl2v_client.core.errors import RunError
from vl2v_client.core.files import open_regular
from vl2v_client.core.values import TeacherModel
from vl2v_contract.identity import Modality

FORMAT = "vl2v purchase 1"
KEY_BYTES = 32
_BLOCK_BYTES = 2**24
_MAX_BYTES = 2**44
DTYPES = {"I64": "<i8", "F16": "<f2", "U8": "u1"}
KINDS = {
    "amounts": "I64",
    "view_rows": "I64",
    "file_facts": "I64",
    "vectors": "F16",
    "bought": "U8",
    "is_text": "U8",
    "keys": "U8",
    "views": "U8",
    "file_hashes": "U8",
    "file_paths": "U8",
}
"""Arrays in their order in the file, with safetensors' name of their type; those of larger numbers come first."""

_TEACHER = TypeAdapter(TeacherModel)


class PurchaseFile:
    """A purchase file, mapped into memory: processes of one host share its pages.

    Args:
        path: The file.

    Attributes:
        path: The file.
        of: Names what it was bought for.
        teacher: Model that answered.
        vectors: `[M, D]` float16 in the order of `rows`, zero where none was bought.

    Raises:
        RunError: It is no purchase file, cut short, or of another version.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with open_regular(path, _MAX_BYTES) as file:
                with safe_open(path, "np") as checked:  # types, shapes and places fit each other and the file
                    self._facts: Mapping[str, str] = checked.metadata() or {}
                self._start, described = _read_header(file)
            if self._facts.get("format") != FORMAT:
                raise ValueError("it is no purchase of this version")
            self.of, self.teacher = self._facts["of"], _TEACHER.validate_json(self._facts["teacher"])
            data = np.memmap(path, dtype="u1", mode="r")[self._start :]
            self._arrays = {name: _array(data, described[name], kind) for name, kind in KINDS.items()}
            self.vectors: NDArray[np.float16] = self._arrays["vectors"]
            self._check_shapes()
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise self._unusable(str(error).partition("\n")[0]) from error
        self._keys, self._views = self._arrays["keys"], self._arrays["views"]

    def _unusable(self, reason: str) -> RunError:
        return RunError(
            f"{self.path} cannot be used ({reason}): remove it, then run the command again where the cache is; what is "
            "bought costs nothing again"
        )

    def _check_shapes(self) -> None:
        shapes = {name: array.shape for name, array in self._arrays.items()}
        (count, width), views, files = shapes["vectors"], len(self._arrays["views"]), len(self._arrays["file_facts"])
        expected = {
            "amounts": (count,),
            "view_rows": (views,),
            "file_facts": (files, 4),
            "bought": (count,),
            "is_text": (count,),
            "keys": (count, KEY_BYTES),
            "views": (views, KEY_BYTES),
            "file_hashes": (files, KEY_BYTES),
        }
        rows = self._arrays["view_rows"]
        is_within = not len(rows) or 0 <= rows.min() <= rows.max() < count
        is_fitting = all(shapes[name] == shape for name, shape in expected.items())
        if width != self.teacher.embedding_dim or not is_within or not is_fitting:
            raise ValueError("its arrays do not fit each other")

    def check(self) -> None:
        """Read the whole file once, and hold it against its hash.

        Raises:
            RunError: It is damaged.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(self._start)
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        if digest.hexdigest() != self._facts.get("sha256"):
            raise self._unusable("its content does not have its hash")

    def rows(self, cache_keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key's vector, `[N]`; -1 for a key that is not here."""
        return _find(self._keys, as_digests(bytes.fromhex("".join(cache_keys))))

    def bought_rows(self, cache_keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each key's vector, `[N]`; -1 for a key whose vector was not bought."""
        rows = self.rows(cache_keys)
        known = rows[rows >= 0]
        rows[rows >= 0] = np.where(self._arrays["bought"][known] > 0, known, -1)
        return rows

    def keys_of_views(self, names: Sequence[bytes]) -> list[str | None]:
        """Return the cache key of each view, by its name from `planning.queries.view_keys`; None if it is not here."""
        places = _find(self._views, as_digests(b"".join(names)))
        rows = self._arrays["view_rows"]
        return [None if place < 0 else self._keys[rows[place]].tobytes().hex() for place in places.tolist()]

    def get_many(self, cache_keys: Sequence[str]) -> dict[str, HalfVector]:
        """Return vectors `[D]` float16 of those keys that were bought, as `cache.store.EmbeddingCache` does."""
        pairs = zip(cache_keys, self.bought_rows(cache_keys).tolist(), strict=True)
        return {key: self.vectors[row] for key, row in pairs if row >= 0}

    def missing(self, cache_keys: Iterable[str]) -> list[str]:
        """Return those of the keys whose vectors were not bought, each once, in order."""
        wanted = list(dict.fromkeys(cache_keys))
        rows = self.bought_rows(wanted).tolist()
        return [key for key, row in zip(wanted, rows, strict=True) if row < 0]

    def paid(self, cache_keys: Iterable[str]) -> dict[Modality, Paid]:
        """Return what was paid for those vectors, each once, at the price of its day."""
        rows = self.rows(list(dict.fromkeys(cache_keys)))
        rows = rows[rows >= 0]
        amounts, is_text = self._arrays["amounts"][rows], self._arrays["is_text"][rows] > 0

        def sum_of(chosen: NDArray[np.bool_]) -> Paid:
            paid = amounts[chosen & (amounts >= 0)]
            return Paid(len(paid), int(paid.sum()))

        return {"image": sum_of(~is_text), "text": sum_of(is_text)}

    def files(self) -> dict[FileStamp, FileContent]:
        """Return the contents of the files that were read for the purchase, as they were then."""
        paths = self._arrays["file_paths"].tobytes().split(b"\0")[:-1]
        rows = zip(paths, self._arrays["file_facts"].tolist(), self._arrays["file_hashes"], strict=True)
        return {
            FileStamp(os.fsdecode(path), size_bytes, changed_ns): FileContent(file_sha.tobytes().hex(), width, height)
            for path, (size_bytes, changed_ns, width, height), file_sha in rows
        }


def as_digests(joined: bytes) -> NDArray[np.uint8]:
    """Return hashes that follow each other as rows, `[N, 32]`."""
    return np.frombuffer(joined, dtype="u1").reshape(-1, KEY_BYTES)


def _read_header(file: BufferedReader) -> tuple[int, dict[str, Any]]:
    """Return where the arrays begin, in bytes, and what a header says of them that safetensors has found right."""
    length = int.from_bytes(file.read(8), "little")
    return 8 + length, json.loads(file.read(length))


def _array(data: NDArray[np.uint8], described: Mapping[str, Any], kind: str) -> NDArray[Any]:
    if described["dtype"] != kind:
        raise ValueError("its arrays have other types")
    start, end = described["data_offsets"]
    return data[start:end].view(DTYPES[kind]).reshape(described["shape"])


def _find(known: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the place of each of `wanted [N, 32]` among sorted `known [M, 32]`, -1 where it is not among them."""
    if not len(known) or not len(wanted):
        return np.full(len(wanted), -1, dtype=np.int64)
    texts, asked = known.view(f"S{KEY_BYTES}")[:, 0], wanted.view(f"S{KEY_BYTES}")[:, 0]
    places = np.minimum(np.searchsorted(texts, asked), len(texts) - 1)
    return np.where(texts[places] == asked, places, -1)
