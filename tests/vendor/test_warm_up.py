"""The warm-up: the smallest batch that pays, within a bounded time and the memory there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.model_warm_up import LanePace, is_out_of_memory, measure_pace, release_memory, warm_up


class Machine:
    """A model whose batches take `fixed + per_item * items` seconds of a clock of its own."""

    def __init__(self, fixed: float, per_item: float, fits: int = 10_000) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        self._fixed, self._per_item, self._fits = fixed, per_item, fits

    def run(self, items: int) -> None:
        if items > self._fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(items)
        self.now += self._fixed + self._per_item * items

    def measure(self) -> LanePace:
        return measure_pace(self.run, lambda: self.now)


@pytest.mark.parametrize(
    ("fixed", "per_item", "chosen"),
    [
        (0.0, 0.06, 1),  # batching gains nothing
        (0.04, 0.06, 16),  # 100 ms alone, 62.5 ms each at 16, which take a second
        (0.04, 0.05, 16),  # ViT-B/32 on two cores: 90 ms alone, 52.5 ms each at 16, and 32 take longer than a second
        (0.4, 0.06, 8),  # the same where only larger batches would pay
        (2.0, 0.06, 1),  # nothing is fast enough
        (0.005, 0.0001, 256),  # a GPU: the largest there is
        (0.0, 0.005, 8),  # batching gains nothing, and a batch of 8 costs nobody anything
    ],
)
def test_the_batch_size_is_the_smallest_that_pays(fixed: float, per_item: float, chosen: int) -> None:
    assert Machine(fixed, per_item).measure().batch_items == chosen


def test_measuring_takes_a_bounded_time() -> None:
    for fixed, per_item in ((0.0, 1e-4), (0.0, 1.0), (3.0, 0.001)):
        machine = Machine(fixed, per_item)
        machine.measure()
        assert machine.now < 20


def test_what_does_not_fit_into_memory_is_not_chosen() -> None:
    assert Machine(1e-3, 1e-5, fits=40).measure().batch_items == 32
    with pytest.raises(RuntimeError, match="out of memory"):
        Machine(1e-3, 1e-5, fits=0).measure()


def test_the_time_of_a_batch_is_that_of_the_next_size_measured() -> None:
    pace = LanePace(8, ((1, 0.1), (2, 0.15), (4, 0.4), (8, 0.6)))
    assert [pace.seconds(items) for items in (1, 2, 3, 8, 100)] == [0.1, 0.15, 0.4, 0.6, 0.6]


class SmallModel:
    """Takes so many images and tokens at once, and notes the shapes that it saw."""

    info = HashEncoder(embedding_dim=4, image_size=8).info

    def __init__(self, images: int = 10_000, tokens: int = 1_000_000) -> None:
        self.shapes: set[tuple[int, ...]] = set()
        self._images, self._tokens = images, tokens

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        return self._encode(pixels, len(pixels) > self._images)

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        return self._encode(tokens, tokens.size > self._tokens)

    def _encode(self, batch: np.ndarray, is_too_large: bool) -> VectorBatch:
        if is_too_large:
            raise MemoryError
        self.shapes.add(batch.shape)
        return np.zeros((len(batch), 4), dtype=np.float32)


def test_both_towers_are_run_at_their_real_shapes() -> None:
    model = SmallModel()
    pace = warm_up(model, None)
    images, texts = pace["image"].batch_items, pace["text"].batch_items
    assert {(1, 8, 8, 3), (images, 8, 8, 3), (1, 77), (texts, 77)} <= model.shapes


def test_a_text_batch_fits_into_memory_also_at_full_length() -> None:
    pace = warm_up(SmallModel(tokens=77 * 5), None)
    assert pace["text"].batch_items <= 5
    assert pace["text"].seconds(pace["text"].batch_items) > 0


def test_a_decided_size_is_taken_as_it_is_or_refused_with_the_remedy() -> None:
    model = SmallModel(images=20)
    assert {lane: pace.batch_items for lane, pace in warm_up(model, {"image": 20, "text": 7}).items()} == {
        "image": 20,
        "text": 7,
    }
    with pytest.raises(ModelLoadFailed, match="max_batch_items"):
        warm_up(model, {"image": 21, "text": 7})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(("is_available", "calls"), [(True, 1), (False, 0)])
def test_the_gpu_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch, is_available: bool, calls: int) -> None:
    emptied: list[bool] = []
    monkeypatch.setitem(sys.modules, "torch", fake_torch(lambda: emptied.append(True), is_available=is_available))
    release_memory()
    assert len(emptied) == calls


def fake_torch(empty_cache: Callable[[], None], *, is_available: bool = True) -> SimpleNamespace:
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: is_available, empty_cache=empty_cache))
