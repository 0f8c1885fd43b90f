"""What the vectors of an answer weigh and cost in each form, against FastAPI's default JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from http_target import Answer
from numpy.typing import NDArray
from vendor_arms import TEXTS_PATH, Arm
from vendor_turns import Row, check, make_row, vectors_of

from vl2v_contract.vectors import encode_vector, to_base64
from vl2v_contract.wire.frames import unpack_answer

FASTAPI = "FastAPI default"
SIZE, COST, ANSWER, STAGE = "bytes of 32 vectors", "encoding 32 vectors", "bytes of the whole answer", "encode stage"
BASE64, HALF, FLOATS = "base64 float32", "raw float16", "JSON floats"
_VECTORS = 32
_REPEATS = 15

_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    HALF: ("application/octet-stream", {"dtype": "float16"}),
    BASE64: ("application/json", {"encoding": "base64", "dtype": "float32"}),
    FLOATS: ("application/json", {"encoding": "float", "dtype": "float32"}),
}


async def measure_wire(arm: Arm) -> list[Row]:
    """Ask for the same 32 texts in each form; weigh the answers; time what encodes vectors of their kind."""
    answers = {form: await _ask(arm, form) for form in _FORMS}
    vectors = vectors_of(answers[BASE64][0])
    fastapi = len(_fastapi(vectors))
    rows = [make_row(SIZE, FASTAPI, "bytes", [fastapi])]
    rows += [make_row(SIZE, form, "bytes", [_vector_bytes(answers[form][0], form)]) for form in (BASE64, HALF)]
    rows += [make_row(ANSWER, form, "bytes", [len(found[0].body)]) for form, found in answers.items()]
    for form, found in answers.items():
        stages = [stage for answer in found if (stage := _encode_stage(answer)) is not None]
        rows.append(make_row(STAGE, form, "ms", stages, note="" if stages else "the answer has no Server-Timing"))
    rows.append(make_row(COST, FASTAPI, "ms", _milliseconds(lambda: _fastapi(vectors))))
    rows.append(make_row(COST, BASE64, "ms", _milliseconds(lambda: _base64(vectors))))
    rows.append(make_row(COST, HALF, "ms", _milliseconds(lambda: [encode_vector(one, "float16") for one in vectors])))
    return rows


async def _ask(arm: Arm, form: str) -> list[Answer]:
    accept, options = _FORMS[form]
    items = [{"text": f"caption number {number}"} for number in range(_VECTORS)]
    body = json.dumps({"items": items, **options}).encode()
    request = arm.target.request(TEXTS_PATH, body, headers={"Accept": accept})
    answers = [await arm.target.ask(request) for _ in range(_REPEATS)]
    check(answers)
    return answers


def _vector_bytes(answer: Answer, form: str) -> int:
    """Bytes of the vectors alone, their quotes and commas included."""
    if form == HALF:
        return sum(vector.nbytes for vector in unpack_answer(answer.body)[1].values())
    return len(_compact([item["embedding"] for item in json.loads(answer.body)["data"]]))


def _encode_stage(answer: Answer) -> float | None:
    """Milliseconds that the vendor says it took to build the answer."""
    for metric in answer.headers.get("server-timing", "").split(","):
        name, _, duration = metric.strip().partition(";dur=")
        if name == "encode":
            return float(duration)
    return None


def _milliseconds(work: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return [median(times)]


def _fastapi(vectors: NDArray[np.float32]) -> bytes:
    """What a plain FastAPI route makes of lists of floats."""
    return bytes(JSONResponse(jsonable_encoder({"embeddings": vectors.tolist()})).body)


def _base64(vectors: NDArray[np.float32]) -> bytes:
    return _compact([to_base64(vector, "float32") for vector in vectors])


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
