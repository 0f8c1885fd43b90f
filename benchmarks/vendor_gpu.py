"""The vendor on a GPU: against the bare fp16 forward pass, against bare decoding, and its vectors against fp32."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from load_generator import closed_loop
from pictures import tensors
from random_models import RandomModel
from raw_model import RawModel
from result import Goal
from vendor_arms import IMAGES_PATH, OURS, RAW, Arm, ours
from vendor_turns import Figures, Row, check, make_row, take_turns, vectors_of

from vl2v_contract.wire.embeddings import RequestOptions
from vl2v_contract.wire.frames import pack_upload
from vl2v_contract.wire.headers import OCTET_STREAM, RGB8_TENSOR

FORWARD, DECODE, JPEGS, TENSORS, PARITY = (
    "forward pass alone, fp16",
    "decoding alone",
    "32 clients x 32 JPEGs",
    "32 clients x 32 uint8 tensors",
    "cosine to fp32 on the CPU",
)
_CLIENTS, _SIZE = 32, 32
_PARITY_IMAGES = 32
_LEAST_COSINE, _OF_SLOWEST, _OF_FORWARD = 0.9995, 0.90, 0.85


def card_name() -> str | None:
    """The GPU's name; None where torch sees none. Asked in another process: CUDA keeps what it initialises."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


async def measure_gpu(
    folder: Path, model: RandomModel, photos: Sequence[bytes], photos_folder: Path, *, rounds: int, images: int
) -> tuple[list[Row], list[Goal]]:
    """Every GPU arm in turns; without a GPU one row that says so."""
    card = card_name()
    if card is None:
        return [make_row(FORWARD, RAW, "images/s", [], note="skipped: torch sees no CUDA device here")], []
    with (
        RawModel(model, photos_folder) as exact,
        RawModel(model, photos_folder, "cuda", "fp16") as raw,
        ours(folder / "gpu-vendor", model, "cuda") as arm,
    ):
        reference = exact.encode_images(_PARITY_IMAGES)
        figures, cosine = await _measure(arm, raw, model, photos, reference, rounds, images)
    rows = [row | {"note": card} for row in figures.rows("images/s", FORWARD)]
    rows.append(make_row(PARITY, OURS, "cosine", [cosine], note=card))
    return rows, _goals(figures, cosine)


async def _measure(
    arm: Arm,
    raw: RawModel,
    model: RandomModel,
    photos: Sequence[bytes],
    reference: np.ndarray,
    rounds: int,
    images: int,
) -> tuple[Figures, float]:
    figures = Figures()
    cosine = await _least_cosine(arm, photos, reference)
    pixels = tensors(0, _SIZE, model.image_size)
    tensor_body = pack_upload(RequestOptions(dtype="float16"), [memoryview(one).cast("B") for one in pixels])
    accept = {"Accept": OCTET_STREAM}
    by_tensors = arm.target.request(IMAGES_PATH, tensor_body, RGB8_TENSOR, accept)
    by_jpegs = arm.ask_for(list(itertools.islice(itertools.cycle(photos), _SIZE)))

    async def bare(load: str) -> None:
        task = raw.seconds_to_forward if load == FORWARD else raw.seconds_to_decode
        count = max(images, 1024) * (8 if load == FORWARD else 1)
        figures.add((load, RAW), count / await asyncio.to_thread(task, count))

    async def turn(load: str, request: bytes) -> None:
        requests = [request] * max(_CLIENTS * 4, images // _SIZE)
        done = await closed_loop(arm.target, requests, _CLIENTS)
        check(done.answers)
        figures.add((load, OURS), len(requests) * _SIZE / done.seconds, 100 * done.cpu_seconds / done.seconds)

    await take_turns(
        [
            lambda: bare(FORWARD),
            lambda: bare(DECODE),
            lambda: turn(JPEGS, by_jpegs),
            lambda: turn(TENSORS, by_tensors),
        ],
        rounds,
    )
    return figures, cosine


async def _least_cosine(arm: Arm, photos: Sequence[bytes], reference: np.ndarray) -> float:
    """The worst cosine between the vendor's vectors and exact ones of the same JPEGs."""
    from http_target import multipart

    body, media_type = multipart(list(itertools.islice(itertools.cycle(photos), len(reference))))
    request = arm.target.request(IMAGES_PATH, body, media_type)
    vectors = vectors_of(await arm.target.ask(request))
    return float((vectors * reference).sum(axis=1).min())


def _goals(figures: Figures, cosine: float) -> list[Goal]:
    slowest = min((FORWARD, DECODE), key=lambda load: sum(figures.values[load, RAW]))
    of_slowest = figures.ratio((JPEGS, OURS), (slowest, RAW)) or 0.0
    of_forward = figures.ratio((TENSORS, OURS), (FORWARD, RAW)) or 0.0
    return [
        Goal(f"GPU, JPEGs: of {slowest}", round(of_slowest, 3), f">= {_OF_SLOWEST}", of_slowest >= _OF_SLOWEST),
        Goal(f"GPU, uint8 tensors: of {FORWARD}", round(of_forward, 3), f">= {_OF_FORWARD}", of_forward >= _OF_FORWARD),
        Goal("GPU: cosine to fp32", round(cosine, 6), f">= {_LEAST_COSINE}", cosine >= _LEAST_COSINE),
    ]
