"""Large batches run as one part on each thread; the caller sees one batch, and its own threads are untouched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from support.vendor.tiny_clip import write_tiny_clip
from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.engine.models.open_clip_model import BatchThreads, OpenClipModel

BATCH = np.arange(9, dtype=np.int64)[:, None]


class Recorder:
    """Encodes items as themselves and remembers what it was given, and on how many threads of torch."""

    def __init__(self) -> None:
        self.parts: list[list[int]] = []
        self.torch_threads: list[int] = []

    def __call__(self, batch: PixelBatch | TokenBatch) -> VectorBatch:
        self.parts.append(batch[:, 0].tolist())
        self.torch_threads.append(torch.get_num_threads())
        return batch.astype(np.float32)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_large_batch_is_shared_out_and_comes_back_in_order() -> None:
    recorder = Recorder()
    found = BatchThreads(2).encode(recorder, BATCH)
    np.testing.assert_array_equal(found, BATCH)
    assert sorted(recorder.parts) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert recorder.torch_threads == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("threads", "items"), [(1, 9), (2, 3), (5, 9)])
def test_a_small_batch_and_a_single_thread_are_left_whole(threads: int, items: int) -> None:
    recorder = Recorder()
    BatchThreads(threads).encode(recorder, BATCH[:items])
    assert recorder.parts == [list(range(items))]
    assert recorder.torch_threads == [2]


def test_an_error_is_raised_when_no_part_runs_any_more() -> None:
    running = threading.Semaphore(0)
    ended: list[bool] = []

    def encode(part: PixelBatch | TokenBatch) -> VectorBatch:
        if part[0, 0] == 0:
            running.acquire(timeout=10)
            raise RuntimeError("out of memory")
        running.release()
        time.sleep(0.1)
        ended.append(True)
        return part.astype(np.float32)

    threads = BatchThreads(2)
    with pytest.raises(RuntimeError, match="out of memory"):
        threads.encode(encode, BATCH)
    assert ended == [True]
    np.testing.assert_array_equal(threads.encode(Recorder(), BATCH), BATCH)


def test_a_models_vectors_do_not_depend_on_it(tmp_path: Path) -> None:
    model = OpenClipModel(write_tiny_clip(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    alone = np.concatenate([model.encode_images(pixels[item : item + 1]) for item in range(8)])
    np.testing.assert_allclose(model.encode_images(pixels), alone, atol=1e-6)
