"""Frames: frozen bytes, both directions, and every way in which bytes can be wrong."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import Receipt
from vl2v_contract.wire.embeddings import EmbeddingsResponse, RequestOptions
from vl2v_contract.wire.frames import (
    ALIGNMENT,
    ContractError,
    UploadHead,
    pack_answer,
    pack_frame,
    pack_upload,
    unpack_answer,
    unpack_frame,
    unpack_upload,
)

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / "frames.json").read_text(encoding="utf-8"))[name]


def answer_head(**changes: object) -> EmbeddingsResponse:
    return EmbeddingsResponse.model_validate(json.loads(golden("answer")["head"]) | changes)


def reframed(head: str, payload: bytes = b"") -> bytes:
    return pack_frame(head.encode(), [payload])


# Frozen bytes


def test_an_answer_is_these_bytes() -> None:
    frozen = golden("answer")
    vectors = [np.asarray(vector, dtype=np.float32) for vector in frozen["vectors"]]
    assert pack_answer(answer_head(), vectors).hex() == frozen["frame"]


def test_these_bytes_are_an_answer() -> None:
    frozen = golden("answer")
    head, vectors = unpack_answer(bytes.fromhex(frozen["frame"]))
    assert head == answer_head()
    assert list(vectors) == [0, 2]
    assert [vector.tolist() for vector in vectors.values()] == frozen["vectors"]
    assert {vector.dtype.str for vector in vectors.values()} == {"<f2"}


def test_an_upload_is_these_bytes_and_these_bytes_are_an_upload() -> None:
    frozen = golden("upload")
    images = [bytes.fromhex(image) for image in frozen["images"]]
    options = RequestOptions(model="m", dtype="float16", item_keys=["a" * 64, None])
    assert pack_upload(options, images).hex() == frozen["frame"]
    head, views = unpack_upload(bytes.fromhex(frozen["frame"]))
    assert head == UploadHead.model_validate_json(frozen["head"])
    assert [bytes(view) for view in views] == images


def test_an_answer_without_our_code() -> None:
    """What another implementation would do: fixed offsets, JSON, little-endian halves."""
    frozen = golden("answer")
    data = bytes.fromhex(frozen["frame"])
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version) == (b"VL2V", 1)
    assert data[12 : 12 + length].decode() == frozen["head"]
    start = -(-(12 + length) // 16) * 16
    numbers = struct.unpack_from("<6e", data, start)
    assert [list(numbers[:3]), list(numbers[3:])] == frozen["vectors"]
    assert start + 12 == len(data)


def test_the_frame_of_the_manual_is_one() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    snippet = next(part for part in manual.split("```python\n") if part.startswith("import json, struct"))
    names: dict[str, Any] = {}
    exec(snippet.partition("```")[0], names)
    head, views = unpack_upload(names["frame"]({"model": "m", "dtype": "float16"}, [b"first", b"2nd!"]))
    assert (head.model, head.dtype, [bytes(view) for view in views]) == ("m", "float16", [b"first", b"2nd!"])


def test_a_receipt_in_the_head_is_whole() -> None:
    entry = json.loads((GOLDEN / "entry.json").read_text(encoding="utf-8"))
    receipt = Receipt(entry=LedgerEntry(**entry["entry"]), entry_hash=entry["entry_hash"], key_id="k", signature="s")
    vectors = [np.eye(3, dtype=np.float32)[0]] * 2
    head, _ = unpack_answer(pack_answer(answer_head(receipt=receipt), vectors))
    assert head.receipt == receipt


# Both directions


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_what_is_uploaded_arrives(images: list[bytes]) -> None:
    head, views = unpack_upload(pack_upload(RequestOptions(model="m"), images))
    assert [bytes(view) for view in views] == images
    assert (head.model, head.sizes) == ("m", [len(image) for image in images])


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_the_payload_is_aligned(head: bytes, payload: bytes) -> None:
    data = pack_frame(head, [payload])
    assert tuple(map(bytes, unpack_frame(data))) == (head, payload)
    assert (len(data) - len(payload)) % ALIGNMENT == 0


@pytest.mark.parametrize("vectors", [1, 3])
def test_another_number_of_vectors_than_delivered_items_is_not_packed(vectors: int) -> None:
    with pytest.raises(ValueError, match="2 items of width 3"):
        pack_answer(answer_head(), [np.zeros(3, dtype=np.float32)] * vectors)


def test_vectors_of_another_width_are_not_packed() -> None:
    with pytest.raises(ValueError, match="2 items of width 3"):
        pack_answer(answer_head(), [np.zeros(4, dtype=np.float32)] * 2)


# Hostile bytes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "at least 12 bytes"),
        (b"VL2V\x01\0\0\0\0\0\0", "at least 12 bytes, and this has 11"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "begins with the letters VL2V"),
        (b'{"items": []}', "begins with the letters VL2V"),
        (struct.pack("<4sII", b"VL2V", 2, 0) + bytes(4), "version 2, and 1 is read"),
        (struct.pack("<4sII", b"VL2V", 1, 2**32 - 1) + bytes(100), "has 4294967295 bytes, and at most 16777216"),
        (struct.pack("<4sII", b"VL2V", 1, 2**24 + 1) + bytes(2**24 + 20), "has 16777217 bytes, and at most"),
        (struct.pack("<4sII", b"VL2V", 1, 20) + b"{}" + bytes(2), "ends within its head"),
        (struct.pack("<4sII", b"VL2V", 1, 2) + b"{}", "ends within its head"),
        (struct.pack("<4sII", b"VL2V", 1, 2) + b"{}\0x", "not zero"),
    ],
)
def test_bytes_that_are_no_frame_are_named(data: bytes, says: str) -> None:
    for unpack in (unpack_frame, unpack_answer, unpack_upload):
        with pytest.raises(ContractError, match=says):
            unpack(data)


@pytest.mark.parametrize("keep", range(0, 900, 37))
def test_a_truncated_answer_is_refused(keep: int) -> None:
    data = bytes.fromhex(golden("answer")["frame"])
    assert keep < len(data)
    with pytest.raises(ContractError):
        unpack_answer(data[:keep])
    with pytest.raises(ContractError):
        unpack_answer(data[:-1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoding": "base64"}, "encoding `raw`"),
        ({"data": [{"index": 0, "item_key": None, "status": "billed", "embedding": "AAAA"}]}, "no `embedding`"),
        ({"embedding_dim": 0}, "cannot have 0 numbers"),
        ({"embedding_dim": -3}, "cannot have -3 numbers"),
        ({"embedding_dim": 2**40}, "cannot have"),
        ({"embedding_dim": 4}, "2 vectors of 4 float16 numbers need 16 bytes, got 12"),
        ({"dtype": "float32"}, "need 24 bytes, got 12"),
        ({"dtype": "int8"}, "dtype"),
        ({"data": []}, "0 vectors of 3 float16 numbers need 0 bytes, got 12"),
        ({"usage": None}, "usage"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(changes: dict[str, object], says: str) -> None:
    head = json.dumps(json.loads(golden("answer")["head"]) | changes)
    with pytest.raises(ContractError, match=says):
        unpack_answer(reframed(head, bytes(12)))


@pytest.mark.parametrize(
    ("head", "payload", "says"),
    [
        ("", b"", "Invalid JSON"),
        ("[]", b"", "it: Input should be an object"),
        ("{", b"", "Invalid JSON"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), b"", "Invalid JSON"),
        ("{}", b"", "sizes: Field required"),
        ('{"sizes": []}', b"", "sizes"),
        ('{"sizes": [-1, 3]}', b"ab", "sizes.0"),
        ('{"sizes": [1.5]}', b"a", "sizes.0"),
        ('{"sizes": [1], "colour": 1}', b"a", "colour"),
        ('{"sizes": [3]}', b"ab", "adds up to 3 bytes, but 2 follow"),
        ('{"sizes": [1]}', b"ab", "adds up to 1 bytes, but 2 follow"),
        ('{"sizes": [18446744073709551616]}', b"ab", "follow the head"),
        ("[" * 100_000, b"", "Invalid JSON"),
    ],
)
def test_an_upload_that_contradicts_itself_is_refused(head: str, payload: bytes, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        unpack_upload(reframed(head, payload))


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_contract_error(noise: bytes) -> None:
    for data in (noise, b"VL2V\x01\0\0\0" + noise, reframed(noise.decode("latin-1"))):
        for unpack in (unpack_answer, unpack_upload):
            with pytest.raises(ContractError):
                unpack(data)


def test_a_head_is_not_copied_for_each_field_that_it_lacks() -> None:
    frame = reframed(json.dumps(dict.fromkeys(map(str, range(5000)))))
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match="Field required"):
            unpack_answer(frame)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_500_000
