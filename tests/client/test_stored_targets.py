"""Targets in the file of a purchase or of a local teacher: those in memory to the bit, read when a step asks."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.fake_vendor import FakeVendor
from support.client.sweep_bench import TRAINING, opened_source, tiny_sweep
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_client.cache.memo import SessionCache
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import CacheError, DataError
from vl2v_client.core.progress import silent
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.recipes.sweep import buy_for_sweep
from vl2v_client.runs.local_source import LocalSource, load_local_teacher
from vl2v_client.runs.run_folder import claim_run_folder
from vl2v_client.runs.settings import settle
from vl2v_client.runs.sweep_purchase import find_purchase
from vl2v_client.runs.teacher_answers import lend_to_all_views
from vl2v_client.teacher.stored_vectors import StoredVectors, copy_to_disk, in_memory
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


def test_a_pass_over_a_mapped_file_leaves_no_pages_of_it_in_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("SMAPS: this system does not say what a process has in memory")
    np.save(tmp_path / "vectors.npy", np.ones((4_000, 512), dtype=np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    stored = StoredVectors(np.arange(len(mapped)).reshape(-1, 4), mapped)
    assert np.asarray(mapped).max() == 1
    assert _resident_bytes(tmp_path / "vectors.npy") > 3 * 2**20
    assert in_memory(stored).any()
    assert _resident_bytes(tmp_path / "vectors.npy") < 2**19
    assert (stored[:2] == in_memory(stored)[:2]).all()


def _resident_bytes(path: Path) -> int:
    """What this process has of a mapped file in memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.endswith(str(path))]
    of_file = [next(line for line in lines[start:] if line.startswith("Rss:")) for start in starts]
    return sum(1024 * int(line.split()[1]) for line in of_file)


def test_a_local_teacher_s_answers_stay_in_their_file_too(tmp_path: Path) -> None:
    spec = write_tiny_clip(tmp_path)
    groups = {
        "data": {"root": draw_domains(tmp_path / "data", 5), "target_domain": "art"},
        "purchase": {"views": 2, "local_teacher": str(spec.config_file), "local_weights": spec.checkpoint_file},
        "student": {"name": "tiny"},
        "training": {**TRAINING, "train_views": 2, "probe": False},
    }
    run = settle(RunConfig.model_validate(groups))
    source = LocalSource(load_local_teacher(run.config.purchase, "cpu"), SessionCache())
    planned = source.plan(run.choice, progress=silent)
    with claim_run_folder(tmp_path / "run", run.to_json(planned.plan.teacher)) as folder:
        _, data = source.obtain(run, planned, folder, progress=silent)
    assert isinstance(data.targets.vectors, StoredVectors)
    assert data.targets.bought.all()
    sample, view = planned.queries.split.train[1], planned.queries.views[1][1]
    asked = render_view(load_rgb(sample.path), view, planned.plan.teacher.image_size)
    said = source.teacher.encode_images(asked[None])
    np.testing.assert_allclose(data.targets.vectors[np.array([1]), np.array([1])], said, atol=1e-3)


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


def test_a_run_in_one_process_maps_what_it_has_bought_too(vendor: FakeVendor, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = tiny_sweep(draw_domains(tmp_path / "data", 5), train_views=2).run
    run = run.with_method("vl2v-adip", target_domain="art", seed=0)
    with opened_source(vendor, tmp_path / "client.db") as source:
        planned = source.plan(run.choice, progress=silent)
        with claim_run_folder(tmp_path / "run", run.to_json(planned.plan.teacher)) as folder:
            planned, data = source.obtain(run, planned, folder, progress=silent)
        keys, vectors = planned.plan.image_keys, data.targets.vectors
        pairs = [keys[start : start + 2] for start in range(0, len(keys), 2)]
        joined = join_image_targets(pairs, source.cache.get_many, dimension=vectors.shape[2], names=keys[::2])
    assert isinstance(vectors, StoredVectors)
    assert isinstance(vectors.vectors.base, mmap.mmap)
    assert (in_memory(vectors) == joined.vectors).all()
    assert not [path for path in (tmp_path / "run").iterdir() if path.suffix not in (".json", ".lock", "")]


def test_a_copy_on_disk_says_what_is_wrong_before_training(tmp_path: Path) -> None:
    vectors = {"a": np.ones(WIDTH, dtype=np.float16), "b": np.zeros(WIDTH, dtype=np.float16)}

    def fetch(keys: object) -> dict[str, np.ndarray]:
        return {key: vectors[key] for key in keys if key in vectors}  # type: ignore[attr-defined]

    copied = copy_to_disk(fetch, ["c", "a", "a"], dimension=WIDTH, folder=tmp_path)
    assert copied.bought_rows(["a", "c", "b"]).tolist() == [0, -1, -1]
    assert (copied.vectors == vectors["a"]).all()
    assert copy_to_disk(fetch, ["c"], dimension=WIDTH, folder=tmp_path).vectors.shape == (0, WIDTH)
    with pytest.raises(DataError, match="zero or not finite"):
        copy_to_disk(fetch, ["a", "b"], dimension=WIDTH, folder=tmp_path)
    with pytest.raises(CacheError, match=r"of key a has shape \(7,\), not \(8,\): verify the cache"):
        copy_to_disk(fetch, ["a"], dimension=8, folder=tmp_path)
    with pytest.raises(CacheError, match=r"cannot hold the embeddings .*make room"):
        copy_to_disk(fetch, ["a"], dimension=WIDTH, folder=tmp_path / "absent")
