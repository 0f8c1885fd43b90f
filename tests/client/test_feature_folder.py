"""What runs of a sweep share of frozen students: a part is read whole or computed whole, with the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from support.client.student_factories import coloured_views, fresh_classifier
from vl2v_client.cache.feature_store import FeatureFolder
from vl2v_client.config.training import TrainingConfig
from vl2v_client.student.train.devices import cpu_threads
from vl2v_client.student.train.frozen_features import FrozenFeatures

CONFIG = TrainingConfig(device="cpu", evaluation_batch_size=5)


def _ones(calls: list[int]) -> Callable[[], NDArray[np.float16]]:
    def compute() -> NDArray[np.float16]:
        calls.append(1)
        return np.ones((5, 8), dtype=np.float16)

    return compute


def test_runs_read_what_one_of_them_has_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    views = coloured_views(6, views=2, seed=1)
    views, computed = replace(views, keys=[bytes([place]) for place in range(len(views) * 2)]), 0
    compute = FrozenFeatures._computed

    def counted(self: FrozenFeatures, pixels: NDArray[np.uint8], names: Sequence[bytes]) -> Tensor:
        nonlocal computed
        computed += len(pixels)
        return compute(self, pixels, names)

    monkeypatch.setattr(FrozenFeatures, "_computed", counted)

    def features(store: FeatureFolder | None, seed: int = 0) -> Tensor:
        frozen = FrozenFeatures(fresh_classifier(seed=seed), CONFIG, store)
        return torch.cat([*frozen.parts(views.first(2), views.first_keys(2))])

    plain = features(None)
    for _ in range(3):
        assert torch.equal(features(FeatureFolder(tmp_path / "features")), plain)
    assert computed == 2 * len(plain)
    assert not torch.equal(features(FeatureFolder(tmp_path / "features"), seed=1), plain)


def test_a_part_that_is_damaged_or_finds_no_room_is_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []
    folder = FeatureFolder(tmp_path / "features", max_bytes=250)
    for key in (b"a", b"a", b"b", b"c", b"c"):  # 80 bytes of numbers below 128 of header each: room for one
        assert (folder.part(key, _ones(calls)) == 1).all()
    assert len(calls) == 4
    (kept,) = (tmp_path / "features").iterdir()
    for content in (b"", kept.read_bytes()[:-1]):
        kept.write_bytes(content)
        assert folder.part(b"a", _ones(calls)).shape == (5, 8)
    assert len(calls) == 6
    nowhere = FeatureFolder(kept / "below a file")
    assert (nowhere.part(b"a", _ones(calls)) == 1).all()


def test_runs_that_compute_a_part_together_leave_one(tmp_path: Path) -> None:
    calls: list[int] = []
    folder = FeatureFolder(tmp_path / "features")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: folder.part(b"a", _ones(calls)), range(20)))
    assert all((one == 1).all() for one in made)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_threads_are_those_that_are_named_until_the_block_ends() -> None:
    torch.set_num_threads(1)
    with cpu_threads(2):
        assert torch.get_num_threads() == 2
        with cpu_threads(None):
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
