"""What parent and child share: batches in place, nothing too large, nothing left over; texts little padded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.engine.process.model_worker import answer, encode_in_buckets
from vl2v_vendor.engine.process.shared_slots import SlotLayout, Slots, Work, map_memory, open_memory

LAYOUT = SlotLayout(input_bytes=300, output_bytes=100)


def open_slots(layout: SlotLayout = LAYOUT) -> Slots:
    return Slots(map_memory(open_memory(), layout.size_bytes), layout)


def test_slots_do_not_overlap_and_hold_what_was_put_in() -> None:
    slots = open_slots()
    for slot in range(LAYOUT.count):
        slots.input(Work(0, slot, "image", (300,)))[:] = 10 + slot
        slots.output(slot, (5, 5))[:] = 0.5 + slot
        slots.abandoned[slot] = slot == 1
    for slot in range(LAYOUT.count):
        assert (slots.input(Work(0, slot, "image", (10, 30))) == 10 + slot).all()
        assert (slots.output(slot, (25,)) == 0.5 + slot).all()
        assert slots.abandoned[slot] == (slot == 1)


def test_what_is_larger_than_a_slot_is_refused() -> None:
    slots = open_slots()
    with pytest.raises(ValueError, match="does not fit"):
        slots.input(Work(0, 0, "image", (301,)))
    with pytest.raises(ValueError, match="does not fit"):
        slots.output(0, (26,))


def test_the_memory_has_no_name_and_no_descriptor_is_kept() -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = open_memory()
    memory = map_memory(file, 1000)
    with pytest.raises(OSError, match="closed"):
        map_memory(file, 1000)
    assert "memfd:vl2v-batches (deleted)" in Path("/proc/self/maps").read_text()
    memory.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_memory_is_not_unmapped_under_a_view_and_not_read_once_unmapped() -> None:
    slots = open_slots()
    view = slots.input(Work(0, 1, "image", (10, 30)))
    with pytest.raises(BufferError):
        slots.close()
    view[:] = 7
    assert view.sum() == 2100
    del view
    slots.close()
    for use in (lambda: slots.output(0, (3,)), lambda: slots.abandoned[0]):
        with pytest.raises((ValueError, IndexError)):
            use()


def test_without_memfd_a_nameless_temporary_file_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    slots = open_slots()
    slots.output(1, (3,))[:] = 7
    assert (slots.output(1, (3,)) == 7).all()


class PartModel:
    """Adds up; refuses white images for lack of memory."""

    info = None

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        if (pixels == 255).all():
            raise RuntimeError("CUDA out of memory\nmore")
        return pixels.sum(axis=(1, 2, 3))[:, None].astype(np.float32)

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        return tokens.sum(axis=1)[:, None].astype(np.float32)


def test_the_child_answers_in_place_and_survives_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[BaseException | None] = []
    monkeypatch.setitem(sys.modules, "torch", fake_torch(lambda: emptied.append(sys.exc_info()[1])))
    slots, model = open_slots(), PartModel()
    work = Work(7, 1, "image", (2, 2, 2, 3))
    slots.input(work)[:] = np.array([1, 2], dtype=np.uint8)[:, None, None, None]
    assert answer(model, slots, work).shape == (2, 1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(slots.output(1, (2, 1)), [[12], [24]])
    work = Work(8, 0, "image", (1, 2, 2, 3))
    slots.input(work)[:] = 255
    failed = answer(model, slots, work)  # type: ignore[arg-type]
    assert (failed.id, failed.shape, failed.error) == (8, None, "RuntimeError: CUDA out of memory")
    assert emptied == [None]  # no exception holds the failed batch any more
    slots.abandoned[0] = True
    assert "nobody" in str(answer(model, slots, Work(9, 0, "text", (1, 3))).error)  # type: ignore[arg-type]


def fake_torch(empty_cache: Callable[[], None]) -> object:
    class Cuda:
        is_available = staticmethod(lambda: True)

    Cuda.empty_cache = staticmethod(empty_cache)  # type: ignore[attr-defined]
    return type("Torch", (), {"cuda": Cuda})


def texts(*lengths: int) -> TokenBatch:
    """Token ids 1, 2, ... of the given lengths, padded to 77."""
    batch = np.zeros((len(lengths), 77), dtype=np.int64)
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = np.arange(1, length + 1)
    return batch


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ((5, 9, 13), [(3, 13)]),
        ((77, 8, 20, 77, 39), [(3, 77), (1, 20), (1, 8)]),
        ((32, 16, 17, 3), [(2, 32), (2, 16)]),
        ((1,), [(1, 1)]),
    ],
)
def test_texts_run_with_texts_of_like_length(lengths: tuple[int, ...], shapes: list[tuple[int, int]]) -> None:
    seen: list[tuple[int, ...]] = []

    def encode(tokens: TokenBatch) -> VectorBatch:
        seen.append(tokens.shape)
        assert tokens.flags["C_CONTIGUOUS"]
        return np.stack([tokens.sum(axis=1), (tokens != 0).sum(axis=1)], axis=1).astype(np.float32)

    batch = texts(*lengths)
    vectors = encode_in_buckets(encode, batch)
    np.testing.assert_array_equal(vectors[:, 1], lengths)
    np.testing.assert_array_equal(vectors[:, 0], batch.sum(axis=1))
    assert seen == shapes
