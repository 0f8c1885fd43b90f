"""What a frozen student says of a view is computed once: within a run, for later runs, and with the same bits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.student_factories import coloured_views, fresh_classifier
from vl2v_client.cache import feature_store
from vl2v_client.cache.feature_store import FeatureStore
from vl2v_client.config.training import TrainingConfig
from vl2v_client.student.train.feeds import FeatureFeed
from vl2v_client.student.train.frozen_features import FrozenFeatures

CONFIG = TrainingConfig(device="cpu", evaluation_batch_size=5)
TRAIN, HELD_OUT = 32, 8  # of twenty images in each of two source domains
TRIAL = 16  # looks at a few of them, before anything is bought
WORDS = ("--views", "2", "--train-views", "2", "--align", "ridge", "--probe", "--align-steps", "40")


def _rows(count: int, start: int = 0) -> list[tuple[bytes, NDArray[np.float16]]]:
    return [
        (bytes([place // 256, place % 256]), np.full(64, place, np.float16)) for place in range(start, start + count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    made = FeatureStore(tmp_path / "features.db")
    yield made
    made.close()


def test_what_was_kept_is_found_by_another_process(store: FeatureStore, tmp_path: Path) -> None:
    rows = _rows(1200)
    store.put(rows)
    store.put(rows[:3])
    other = FeatureStore(tmp_path / "features.db")
    found = other.get([key for key, _ in rows] + [b"absent"])
    assert found.keys() == {key for key, _ in rows}
    assert all((found[key] == vector).all() for key, vector in rows)
    assert (tmp_path / "features.db").stat().st_mode & 0o777 == 0o600
    other.close()
    assert other.get([rows[0][0]]) == {}


def test_the_oldest_make_room(tmp_path: Path) -> None:
    bound = 2**17
    store = FeatureStore(tmp_path / "features.db", bound)
    for start in range(0, 3000, 50):
        store.put(_rows(50, start))
    last, first = _rows(50, 2950), _rows(50)
    assert len(store.get([key for key, _ in last])) == 50
    assert not store.get([key for key, _ in first])
    store.close()
    assert (tmp_path / "features.db").stat().st_size < bound + 2**16


@pytest.mark.parametrize("fault", ["folder", "other file", "other tables", "locked"])
def test_a_store_that_cannot_be_used_keeps_nothing_and_harms_nothing(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.db"
    if fault == "folder":
        path.mkdir()
    elif fault == "other file":
        path.write_bytes(b"not a database" * 100)
    else:
        with closing(sqlite3.connect(path)) as held, held:
            held.execute("CREATE TABLE features (something TEXT)")
        held.close()
    before = None if path.is_dir() else path.read_bytes()
    store = FeatureStore(path)
    store.put(_rows(3))
    assert store.get([key for key, _ in _rows(3)]) == {}
    store.close()
    assert before is None or path.read_bytes()[100:] == before[100:]


def test_features_are_the_same_bits_found_or_computed(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    views = coloured_views(6, views=2, seed=1)
    views = replace(views, keys=[bytes([place]) for place in range(len(views) * 2)])
    classifier, seen = fresh_classifier(), 0
    compute = FrozenFeatures._computed

    def counted(self: FrozenFeatures, pixels: NDArray[np.uint8], names: Sequence[bytes]) -> Tensor:
        nonlocal seen
        seen += len(pixels)
        return compute(self, pixels, names)

    monkeypatch.setattr(FrozenFeatures, "_computed", counted)

    def features(of: FeatureStore | None, count: int, classifier=classifier, config: TrainingConfig = CONFIG) -> Tensor:
        return torch.cat([*FrozenFeatures(classifier, config, of).parts(views.first(count), views.first_keys(count))])

    plain = features(None, 2)
    assert (plain.dtype, plain.shape, seen) == (torch.float16, (24, 32), 24)
    assert torch.equal(features(store, 1), plain[::2])
    assert seen == 24 + 12
    assert torch.equal(features(store, 2), plain), "of which the first views are kept"
    assert seen == 24 + 12 + 12
    assert torch.equal(features(store, 2), plain)
    assert seen == 48
    other = fresh_classifier(seed=1)
    assert not torch.equal(features(store, 2, other), plain), "other weights have features of their own"
    smaller = replace(classifier, input=replace(classifier.input, mean=(0.4, 0.5, 0.5)))
    assert not torch.equal(features(store, 2, smaller), plain), "and so has another input"
    features(store, 2, config=CONFIG.replace(bfloat16=True))
    assert seen == 48 + 3 * 24
    features(store, 2, config=CONFIG.replace(evaluation_batch_size=7, seed=3))
    assert seen == 48 + 3 * 24
    features(store, 2, config=CONFIG.replace(channels_last=True))
    monkeypatch.setattr(timm, "__version__", "0")
    assert torch.equal(features(store, 2), plain)
    assert seen == 48 + 5 * 24, "another memory format or version may round otherwise"


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    for domain in ("art", "photo"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for index in range(10):
                path = tmp_path / "data" / domain / name / f"{index}.png"
                Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views passed the frozen student, a batch at a time."""
    seen: list[int] = []
    compute = FrozenFeatures._computed

    def counted(self: FrozenFeatures, pixels: NDArray[np.uint8], names: Sequence[bytes]) -> Tensor:
        seen.append(len(pixels))
        return compute(self, pixels, names)

    monkeypatch.setattr(FrozenFeatures, "_computed", counted)
    return seen


def test_pilot_probe_and_align_share_one_pass_and_a_second_run_needs_none(
    shell: ClientShell, computed: list[int]
) -> None:
    shell.json("pilot", "--queries", "30", "--yes")
    assert sum(computed) == TRAIN
    first = shell.distill(*WORDS)
    assert sum(computed) == 2 * TRAIN + HELD_OUT + TRIAL
    shell.run_folder = shell.folder / "other"
    second = shell.distill(*WORDS)
    assert sum(computed) == 2 * TRAIN + HELD_OUT + 2 * TRIAL
    assert second["rows"] == first["rows"]
    assert (shell.folder / "client-features.db").is_file()


def test_a_run_reads_the_same_bits_whether_they_were_kept_or_not(
    shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def student() -> bytes:
        return (shell.run_folder / "student" / "student.safetensors").read_bytes()

    shell.distill(*WORDS, "--quick")
    kept = student()
    monkeypatch.setattr(feature_store.FeatureStore, "get", lambda _self, _keys: {})
    shell.run_folder = shell.folder / "other"
    shell.distill(*WORDS, "--quick")
    assert student() == kept


@pytest.mark.parametrize(("words", "again"), [((), 0), (("--no-probe", "--align", "adam"), 2 * TRAIN + HELD_OUT)])
def test_a_run_shows_its_views_to_frozen_blocks_once(
    shell: ClientShell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], again: int
) -> None:
    seen: list[int] = []
    see = FeatureFeed._seen

    def counted(self: FeatureFeed, pixels: NDArray[np.uint8]) -> Tensor:
        seen.append(len(pixels) if self._is_cut else 0)
        return see(self, pixels)

    monkeypatch.setattr(FeatureFeed, "_seen", counted)
    shell.distill(*WORDS, "--freeze-until", "2", "--distill-steps", "40", *words)
    assert sum(seen) == 1 + again
