"""Targets that stay in a purchase file: the bits of those in memory, and read when a step asks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.fake_vendor import FakeVendor
from support.client.sweep_bench import opened_source, tiny_sweep
from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import silent
from vl2v_client.recipes.sweep import buy_for_sweep
from vl2v_client.runs.run_folder import claim_run_folder
from vl2v_client.runs.sweep_purchase import find_purchase
from vl2v_client.runs.teacher_answers import lend_to_all_views
from vl2v_client.teacher.stored_vectors import StoredVectors, in_memory
from vl2v_client.teacher.targets import ImageTargets, join_image_targets

SAMPLES, VIEWS, WIDTH = 2_100, 3, 7


@pytest.fixture
def pair() -> tuple[ImageTargets, ImageTargets]:
    """The same targets stored, and joined in memory; one in five was not bought."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, WIDTH)).astype(np.float16)
    rows = rng.integers(0, len(vectors), (SAMPLES, VIEWS))
    rows[rng.random(rows.shape) < 0.2] = -1
    keys = [[str(row) for row in of_one] for of_one in rows]
    names = [str(number) for number in range(SAMPLES)]

    def fetch(wanted: object) -> dict[str, np.ndarray]:
        return {str(row): vectors[row] for row in range(len(vectors))}

    joined = join_image_targets(keys, fetch, dimension=WIDTH, names=names, allow_missing=True)
    return ImageTargets.of_bought(StoredVectors(rows, vectors), rows >= 0), joined


def test_stored_targets_are_those_in_memory_to_the_bit(pair: tuple[ImageTargets, ImageTargets]) -> None:
    stored, joined = pair
    assert isinstance(stored.vectors, StoredVectors)
    assert stored.vectors.shape == joined.vectors.shape
    assert (in_memory(stored.vectors) == joined.vectors).all()
    assert in_memory(stored.vectors).dtype == np.float32
    rows, views = np.array([5, 5, 2_000, 0]), np.array([2, 0, 1, 1])
    for wanted in ((rows, views), (rows[:1], views[:1]), (joined.bought[:, 0], 0), slice(7, 9)):
        assert (stored.vectors[wanted] == joined.vectors[wanted]).all()
    blocks = hashlib.sha256(b"".join(block.tobytes() for block in stored.vectors.blocks()))
    assert blocks.digest() == hashlib.sha256(joined.vectors.tobytes()).digest()
    lent, expected = (lend_to_all_views(one, VIEWS + 2, lenders=VIEWS) for one in pair)
    assert (lent.vectors == expected.vectors).all()
    assert (lent.weights == expected.weights).all()


def test_a_stored_vector_of_no_length_is_named_when_it_is_read() -> None:
    stored = StoredVectors(np.zeros((1, 1), dtype=np.int64), np.zeros((1, WIDTH), dtype=np.float16))
    with pytest.raises(DataError, match="zero or not finite"):
        stored[np.array([0]), np.array([0])]


def test_a_run_keeps_its_targets_in_the_file_that_all_runs_share(vendor: FakeVendor, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = tiny_sweep(draw_domains(tmp_path / "data", 5), train_views=2)
    with opened_source(vendor, tmp_path / "client.db") as source:
        buy_for_sweep(settings, source, tmp_path / "sweep", progress=silent)
    bought = find_purchase(settings, tmp_path / "sweep")
    assert bought is not None
    run = settings.run.with_method("vl2v-adip", target_domain="art", seed=0)
    planned = bought.plan(run.choice, progress=silent)
    with claim_run_folder(tmp_path / "run", run.to_json(bought.file.teacher)) as folder:
        _, data = bought.obtain(run, planned, folder, progress=silent)
    vectors = data.targets.vectors
    assert isinstance(vectors, StoredVectors)
    assert vectors.vectors is bought.file.vectors
    assert (vectors.rows >= 0).all()
