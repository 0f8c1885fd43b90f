"""The hold-out equals DomainBed's, and no image is in two parts."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from vl2v_client.core.errors import DataError
from vl2v_client.data.folder import ClassFiles, DomainDataset
from vl2v_client.data.splits import seed_hash, split, split_rows


def _dataset(per_class: int = 5, domains: tuple[str, ...] = ("art", "cartoon", "photo")) -> DomainDataset:
    classes = tuple(
        ClassFiles(domain, label, [f"{domain}/{label}/{index}.png" for index in range(per_class)])
        for domain in domains
        for label in range(2)
    )
    return DomainDataset(Path("root"), ("cat", "dog"), domains, classes, has_domains=len(domains) > 1)


def test_seed_hash_is_the_md5_of_the_tuple_s_text() -> None:
    assert seed_hash(0, 1) == int(hashlib.md5(b"(0, 1)").hexdigest(), 16) % 2**31
    assert (seed_hash(0, 0), seed_hash(0, 1), seed_hash(3, 2)) == (894182419, 1514274641, 1412061351)


def test_rows_of_a_small_domain_are_those_of_domainbed() -> None:
    # Recorded from DomainBed's own misc.split_dataset(range(10), int(10 * 0.2), misc.seed_hash(0, env)).
    assert split_rows(range(10), seed_hash(0, 0)) == ([2, 3], [8, 1, 4, 5, 0, 9, 6, 7])
    assert split_rows(range(10), seed_hash(0, 1)) == ([5, 0], [3, 7, 8, 6, 1, 2, 9, 4])


def test_each_domain_is_split_by_its_place_whatever_the_target() -> None:
    dataset = _dataset()
    left_out_art, left_out_photo = split(dataset, target_domain="art"), split(dataset, target_domain="photo")
    photo = dataset.samples_of("photo")
    held, kept = split_rows(range(len(photo)), seed_hash(0, 2))
    assert left_out_photo.target_out == tuple(photo[row] for row in held)
    assert left_out_photo.target_in == tuple(photo[row] for row in kept)
    assert [s for s in left_out_art.train if s.domain == "photo"] == [photo[row] for row in kept]
    assert [s for s in left_out_art.validation if s.domain == "photo"] == [photo[row] for row in held]


@pytest.mark.parametrize("target", ["art", "cartoon", "photo", None])
def test_parts_are_disjoint_cover_everything_and_keep_the_target_out(target: str | None) -> None:
    dataset = _dataset()
    parts = split(dataset, target_domain=target, seed=random.Random(0).randrange(100))
    everything = parts.train + parts.validation + parts.target
    assert sorted(s.path for s in everything) == sorted(s.path for s in dataset.samples)
    assert {s.domain for s in parts.train} == {s.domain for s in parts.validation} == set(parts.source_domains)
    assert {s.domain for s in parts.target} == ({target} if target else set())


def test_a_plain_folder_holds_out_every_class_alike() -> None:
    parts = split(_dataset(per_class=10, domains=("all",)), target_domain=None)
    counts = np.bincount([s.class_index for s in parts.validation])
    assert counts.tolist() == [2, 2]
    assert len(parts.train) == 16
    assert parts.target == ()


def test_a_class_with_one_image_trains() -> None:
    classes = (ClassFiles("all", 0, ["0.png", "1.png", "2.png"]), ClassFiles("all", 1, ["3.png"]))
    parts = split(DomainDataset(Path("root"), ("a", "b"), ("all",), classes, has_domains=False), target_domain=None)
    assert [s.class_index for s in parts.train] == [0, 0, 1]


def test_too_few_images_for_a_hold_out_are_refused() -> None:
    with pytest.raises(DataError, match=r"domain 'art' of root has 4 images, too few"):
        split(_dataset(per_class=2), target_domain="photo")
