"""Splits equal DomainBed's on folders laid out and named as its five data sets are.

The hashes were recorded from DomainBed's own `misc.split_dataset`, `misc.seed_hash` and torchvision's `ImageFolder` (at
b93c22a) on the very folders that `_lay_out` makes: of each domain in turn, the hold-out's paths, then the rest's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split, split

# Folder of the data set: its domains, some of its classes, how its files are called.
LAYOUTS: dict[str, tuple[list[str], list[str], str]] = {
    "PACS": (["art_painting", "cartoon", "photo", "sketch"], ["dog", "elephant", "giraffe"], "pic_{:03d}.jpg"),
    "VLCS": (["Caltech101", "LabelMe", "SUN09", "VOC2007"], ["bird", "car", "chair"], "imgs_{}.jpg"),
    "office_home": (["Art", "Clipart", "Product", "Real World"], ["Alarm_Clock", "Backpack", "TV"], "{:05d}.jpg"),
    "terra_incognita": (
        ["location_38", "location_43", "location_46", "location_100"],
        ["bird", "bobcat", "empty"],
        "5998cfa4-23d2-11e8-a6a3-{:x}.jpg",
    ),
    "domain_net": (
        ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"],
        ["The_Eiffel_Tower", "aircraft_carrier", "zigzag"],
        "image_{:06d}.JPG",
    ),
}

RECORDED = {
    ("PACS", 0): "c59ceee65c4eaa168c618f7b1275f3604e90c6c0995c9274a922b339ea812362",
    ("PACS", 1): "46b72aa8985f0e8f0ebbd8b75cee335c1f462a784b7362bd47068b8f39ad622b",
    ("PACS", 2): "6899239221669c0be66f53ba13876aafa9ef7beffc6fd08805e2a152698f8f57",
    ("VLCS", 0): "5e604168e90037dd51cff42a885e2c2110bfbb6052f277a848f0cb5fe5c2a0fc",
    ("VLCS", 1): "785457c4a874aa3595619b13e60355eaaed006b7dd73e882f2eea9428c9864d2",
    ("VLCS", 2): "ab801b1059084cb1df4e7a64e2781ab640e59608785fc3c4b4fe1b3afbe5a684",
    ("office_home", 0): "709e5fa4236c87a022d833addde32720a4f25fd430f542c45e49e84395de709c",
    ("office_home", 1): "1d593d3f0643c527abf88e77211c2d659ab6fa371e8cdcfe820b1f405b2ed53d",
    ("office_home", 2): "9573f5f0687b6c977fe362d031c944e1a5e7155ef9c66070aec5a202335f7f9d",
    ("terra_incognita", 0): "e62e63653e1eebafe5e7df117bc379754f9f95c0a42d6b2e84dd2d3984f91295",
    ("terra_incognita", 1): "33f408cfd652976959768361328976acec0075e3814aba964d50c78ca20c3fa6",
    ("terra_incognita", 2): "58502ff2739649a5e734133abfe873910bb66675d4465554bf75c1a8dfdab26d",
    ("domain_net", 0): "a0e1ac2dba545991527a87b19558196cd945501cb917686478a67a67e6a3e7b3",
    ("domain_net", 1): "f99c2e776fc9b17d8c0a010c910cf4458d5926d89bb16d7abd0fb92eb9372a39",
    ("domain_net", 2): "7a7688ad45b1e037ae85825e59fe10e07fdf61fbd810e259f8691e4d6a2235c3",
}


def _lay_out(root: Path, name: str) -> Path:
    """Empty files: a split opens none of them. Each domain and class has its own number of them."""
    domains, classes, pattern = LAYOUTS[name]
    for place, domain in enumerate(domains):
        for index, class_name in enumerate(classes):
            folder = root / name / domain / class_name
            folder.mkdir(parents=True)
            for number in range(9 + 5 * place + 3 * index):
                (folder / pattern.format(number)).touch()
    return root / name


def _domainbed(root: Path, trial_seed: int) -> dict[str, tuple[list[str], list[str]]]:
    """DomainBed's rule, over torchvision's own listing: the hold-out and the rest of every domain."""
    parts = {}
    for place, domain in enumerate(sorted(path.name for path in root.iterdir())):
        files = [path for path, _ in ImageFolder(str(root / domain)).samples]
        seed = int(hashlib.md5(str((trial_seed, place)).encode()).hexdigest(), 16) % 2**31
        rows = np.arange(len(files)).tolist()
        np.random.RandomState(seed).shuffle(rows)
        held = int(len(rows) * 0.2)
        parts[domain] = [files[row] for row in rows[:held]], [files[row] for row in rows[held:]]
    return parts


def _ours(dataset: DomainDataset, trial_seed: int) -> dict[str, tuple[list[str], list[str]]]:
    """Each domain as the target of its own run."""
    parts = {}
    for domain in dataset.domains:
        of_run = split(dataset, target_domain=domain, seed=trial_seed)
        parts[domain] = [str(s.path) for s in of_run.target_out], [str(s.path) for s in of_run.target_in]
    return parts


def _hash(parts: dict[str, tuple[list[str], list[str]]], root: Path) -> str:
    lines = [str(Path(path).relative_to(root)) for held, kept in parts.values() for path in [*held, *kept]]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("trial_seed", [0, 1, 2])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_split_of_every_domain_is_domainbed_s(tmp_path: Path, name: str, trial_seed: int) -> None:
    root = _lay_out(tmp_path, name)
    ours = _ours(open_dataset(root), trial_seed)
    assert ours == _domainbed(root, trial_seed)
    assert list(ours) == sorted(LAYOUTS[name][0])
    assert _hash(ours, root) == RECORDED[name, trial_seed]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_domain_s_part_of_training_is_the_same_whoever_is_the_target(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(_lay_out(tmp_path, name))
    whole = _ours(dataset, 0)
    for target in dataset.domains:
        run: Split = split(dataset, target_domain=target)
        for domain in run.source_domains:
            assert [str(s.path) for s in run.validation if s.domain == domain] == whole[domain][0]
            assert [str(s.path) for s in run.train if s.domain == domain] == whole[domain][1]


def test_location_100_comes_before_location_38(tmp_path: Path) -> None:
    dataset = open_dataset(_lay_out(tmp_path, "terra_incognita"))
    assert dataset.domains == ("location_100", "location_38", "location_43", "location_46")
