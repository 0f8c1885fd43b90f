"""Purchases of other software, as their user has kept them: what was asked, and the answer.

A file of JSON Lines, or of JSON, holds objects `{"request": ..., "response": ...}`: the bodies of an exchange with
`/v1/embeddings`, or with the paths of the wire, as they travelled. In place of `request`, `input` may stand alone. An
image of it may be `{"file": PATH}`, relative to the recording. A folder holds such files, or pairs
`NAME.request.json` and `NAME.response.json`.

The vectors of a recording are not stored: their hashes find the charge on the statement, and the vendor hands the
vectors over again, free, with the receipt.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from vl2v_client.core.errors import DataError
from vl2v_client.core.files import open_regular
from vl2v_contract.identity import Modality
from vl2v_contract.vectors import result_sha
from vl2v_contract.wire.openai_format import Input, read_input

_MAX_FILE_BYTES: Final = 2**40
_MAX_IMAGE_BYTES: Final = 512 * 2**20
_REQUEST, _RESPONSE = ".request.json", ".response.json"
_SUFFIXES: Final = (".jsonl", ".json")
_INPUT: TypeAdapter[str | list[Input]] = TypeAdapter(str | list[Input])
_REMEDY: Final = 'each recording is {"request": ..., "response": ...}, the two bodies of an exchange'


@dataclass(frozen=True, slots=True)
class RecordedItem:
    """One item of a recorded purchase.

    Attributes:
        name: Where it stands, for messages.
        content: A text, or the bytes of an image file, as they were sent.
        result_sha: Hash of the vector that came, as a charge names it.
    """

    name: str
    modality: Modality
    content: str | bytes
    result_sha: str


def read_recordings(paths: Sequence[Path]) -> Iterator[RecordedItem]:
    """Yield the items of all recordings in files and folders, in order; nothing is held longer than a recording.

    Raises:
        DataError: A path is missing, or a recording cannot be read; the message names it.
    """
    for path in paths:
        files = [path]
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _SUFFIXES]
            if not files:
                raise DataError(f"{path} holds no recording: a file *.jsonl or *.json, where {_REMEDY}")
        for file in files:
            if not file.name.endswith(_RESPONSE):
                for place, record in _records(file):
                    yield from _items(record, place, file.parent)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each recording of a file, with what to call it."""
    if path.name.endswith(_REQUEST):
        answer = path.with_name(f"{path.name.removesuffix(_REQUEST)}{_RESPONSE}")
        yield str(path), {"request": _load(path), "response": _load(answer)}
    elif path.suffix.lower() == ".jsonl":
        with _opened(path, _MAX_FILE_BYTES) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path} line {number}", _parse(line, f"{path} line {number}")
    else:
        found = _load(path)
        for number, record in enumerate(found if isinstance(found, list) else [found], 1):
            yield f"{path} recording {number}", record


def _load(path: Path) -> Any:
    with _opened(path, _MAX_FILE_BYTES) as file:
        return _parse(file.read(), str(path))


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[BufferedReader]:
    try:
        with open_regular(path, max_bytes) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its path and permissions") from error


def _parse(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}): {_REMEDY}") from error


def _items(record: Any, place: str, folder: Path) -> Iterator[RecordedItem]:
    try:
        modality, contents = _sent(record.get("request", record), folder)
        answer = record["response"]
        rows = sorted(answer["data"], key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(len(contents))):
            raise ValueError(f"{len(contents)} inputs were sent, and {len(rows)} results came")
        hashes = [_hash_of(row, answer.get("dtype", "float32")) for row in rows]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise DataError(f"{place} cannot be read ({why}): {_REMEDY}") from error
    for index, (content, sha) in enumerate(zip(contents, hashes, strict=True)):
        if sha is not None:
            yield RecordedItem(f"{place} input {index}", modality, content, sha)


def _sent(request: Mapping[str, Any], folder: Path) -> tuple[Modality, Sequence[str | bytes]]:
    """Return what a request sent: texts, or the bytes of image files.

    Raises:
        DataError: An image file cannot be read.
        ValueError: It is no request that can be read.
        KeyError: It has no input.
    """
    given = request["items"] if "items" in request else request["input"]
    if isinstance(given, list):
        given = [_loaded(item, folder) for item in given]
    try:
        modality, sources = read_input(_INPUT.validate_python(given))
    except ValidationError as error:
        raise ValueError(f"its input is none: {error.errors()[0]['msg']}") from error
    if modality == "text":
        return modality, sources
    try:
        return modality, [base64.b64decode(source, validate=True) for source in sources]
    except binascii.Error as error:
        raise ValueError("an image is not base64") from error


def _loaded(item: Any, folder: Path) -> Any:
    """Return an element of the input with its file in it, and without the item key that the wire's own paths have."""
    if not isinstance(item, dict):
        return item
    if isinstance(named := item.get("file"), str):
        with _opened(folder / named, _MAX_IMAGE_BYTES) as file:
            return {"image": base64.b64encode(file.read()).decode()}
    return {name: value for name, value in item.items() if name != "item_key"}


def _hash_of(row: Mapping[str, Any], dtype: str) -> str | None:
    """Return the hash of a result's vector; None if the item failed."""
    if row.get("status") == "failed":
        return None
    if isinstance(told := row.get("result_sha"), str):
        return told
    vector = row["embedding"]
    if isinstance(vector, str):
        numbers = np.frombuffer(base64.b64decode(vector, validate=True), "<f2" if dtype == "float16" else "<f4")
    else:
        numbers = np.asarray(vector, dtype=np.float32)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError("a vector is not a list of finite numbers")
    return result_sha(numbers)
