"""What an answer of 32 x 512 numbers costs to build and to send, against FastAPI's own way with lists of numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fastapi.encoders import jsonable_encoder

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import running_vendor
from vl2v_contract.vectors import Dtype, encode_vector, result_sha, to_base64
from vl2v_contract.wire.embeddings import EmbeddingsResponse, Encoding
from vl2v_contract.wire.frames import unpack_answer
from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.service.sale import Sale, SaleItem, SaleRequest
from vl2v_vendor.web.routes.embeddings import build_answer

ITEMS, DIMENSION = 32, 512
RAW, BASE64, FLOATS = ("raw", "float16"), ("base64", "float32"), ("float", "float32")
WIRE_BASE64_AT_MOST, WIRE_RAW_AT_MOST, TIMES_CHEAPER = 0.27, 0.10, 20


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(ITEMS, DIMENSION)).astype(np.float32)
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module")
async def outcome(vectors: np.ndarray, anyio_backend: str) -> Sale:
    """A real sale, with more and wider vectors in it."""

    sold = [
        SaleItem(
            item_key(str(number)),
            PreparedItem(np.zeros(4, dtype=np.int64), "", tokens=4),
            status="billed",
            vector=vector,
            result_sha=result_sha(vector),
            seq=1,
        )
        for number, vector in enumerate(vectors)
    ]
    async with running_vendor() as vendor:
        caller = await vendor.services.authenticator.authenticate(vendor.secret, "embed")
        request = SaleRequest(request_id="req_1", endpoint="/v1/embeddings/texts", modality="text", sources=["a dog"])
        sale = await vendor.services.seller.sell(caller, request)
    return replace(sale, embedding_dim=DIMENSION, items=sold)


def fastapis_way(vectors: np.ndarray) -> str:
    """What a handler that returns `{"embeddings": vectors.tolist()}` makes FastAPI do."""
    return json.dumps(jsonable_encoder({"embeddings": vectors.tolist()}), separators=(",", ":"), ensure_ascii=False)


def least_seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of a few runs: what else the machine does only ever adds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("form", [RAW, BASE64])
def test_building_the_whole_answer_is_twenty_times_cheaper(
    form: tuple[Encoding, Dtype], outcome: Sale, vectors: np.ndarray
) -> None:
    usual = least_seconds(lambda: fastapis_way(vectors), 5)
    ours = least_seconds(lambda: build_answer(outcome, "req_1", *form), 50)
    assert usual / ours >= TIMES_CHEAPER, f"{1000 * usual:.2f} ms against {1000 * ours:.3f} ms"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_take_a_quarter_as_base64_and_a_tenth_as_halves(dtype: Dtype, vectors: np.ndarray) -> None:
    usual = len(fastapis_way(vectors))
    assert len(json.dumps([to_base64(vector, "float32") for vector in vectors])) <= WIRE_BASE64_AT_MOST * usual
    raw = len(encode_vector(list(vectors), dtype))
    assert raw <= (WIRE_RAW_AT_MOST if dtype == "float16" else 2 * WIRE_RAW_AT_MOST) * usual


def test_the_head_of_a_frame_is_small(outcome: Sale, vectors: np.ndarray) -> None:
    framed, half = build_answer(outcome, "req_1", *RAW), encode_vector(list(vectors), "float16")
    assert len(framed) - len(half) <= 300 * ITEMS + 3000
    assert len(framed) <= 0.5 * len(build_answer(outcome, "req_1", *BASE64))


def test_every_form_says_the_same(outcome: Sale, vectors: np.ndarray) -> None:
    head, raw = unpack_answer(build_answer(outcome, "req_1", *RAW))
    told = [EmbeddingsResponse.model_validate_json(build_answer(outcome, "req_1", *form)) for form in (BASE64, FLOATS)]
    for answer in told:
        said = {"encoding": "raw", "dtype": "float16"}
        items = [item.model_copy(update={"embedding": None}) for item in answer.data]
        assert answer.model_copy(update={**said, "data": items}) == head
    np.testing.assert_array_equal(np.stack(list(raw.values())), vectors.astype(np.float16))
    np.testing.assert_array_equal(np.asarray([item.embedding for item in told[1].data], dtype=np.float32), vectors)
