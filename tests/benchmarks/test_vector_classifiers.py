"""Classifiers of bought vectors, against their definition image by image, and on a run that has bought them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accuracy_arms import CLASS_MEANS, NEAREST
from numpy.typing import NDArray
from vector_classifiers import by_class_means, by_nearest, vector_predictions

from support.client.buying_bench import draw_pictures
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.teacher.text_classifier import unit_rows

WIDTH = 6
SIZES = {0: 14, 2: 3, 3: 25}
"""Sources of each class; class 1 has none, and class 2 fewer than are averaged."""


def _world() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(list(SIZES), list(SIZES.values()))).astype(np.int64)
    return unit_rows(random.normal(size=(40, WIDTH))), unit_rows(random.normal(size=(len(labels), WIDTH))), labels


def _cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_class_means_are_the_nearest_mean_by_cosine() -> None:
    images, sources, labels = _world()
    means = {each: sources[labels == each].mean(axis=0) for each in SIZES}
    expected = [max(means, key=lambda each: _cosine(image, means[each])) for image in images]
    assert by_class_means(images, sources, labels).tolist() == expected
    assert set(expected) == set(SIZES)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_nearest_are_chosen_for_each_image_and_averaged(count: int) -> None:
    images, sources, labels = _world()
    expected = []
    for image in images:
        scores = {}
        for each in SIZES:
            nearest = sorted(sources[labels == each], key=lambda source: -_cosine(image, source))[:count]
            scores[each] = _cosine(image, np.mean(nearest, axis=0))
        expected.append(max(scores, key=lambda each: scores[each]))
    found = by_nearest(images, sources, labels, count).tolist()
    assert found == expected
    assert len(set(found)) > 1
    assert (found == by_class_means(images, sources, labels).tolist()) == (count == 100)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[ClientShell, FakeVendor]]:
    """A picture of a cat and one of a dog, many times; in the unseen domain they are filed the wrong way round."""
    torch.set_num_threads(1)
    cat, dog, _ = (sample.path.read_bytes() for sample in draw_pictures(tmp_path / "pictures", 3))
    for domain in ("art", "photo", "sketch"):
        for name, picture in zip(("dog", "cat") if domain == "sketch" else ("cat", "dog"), (cat, dog), strict=True):
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for place in range(5):
                (tmp_path / "data" / domain / name / f"{place}.png").write_bytes(picture)
    vendor = FakeVendor()
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1"), vendor


def _environment(shell: ClientShell) -> dict[str, str]:
    return {"VL2V_CACHE": str(shell.folder / "client.db"), "VL2V_VENDOR_URL": shell.url}


def test_they_cost_nothing_where_the_teacher_s_row_is_bought(shell: tuple[ClientShell, FakeVendor]) -> None:
    client, vendor = shell
    client.distill()
    assert client.run("evaluate", str(client.run_folder), "--teacher", "--yes").exit_code == 0
    billed = vendor.billed_units
    said = vector_predictions(client.run_folder, _environment(client))
    assert vendor.billed_units == billed
    expected = [("cat", "dog")] * 5 + [("dog", "cat")] * 5
    for row in (CLASS_MEANS, NEAREST):
        of_row = sorted((each for each in said if each.classifier == row), key=lambda each: each.path)
        assert [each.path for each in of_row] == [f"sketch/{name}/{i}.png" for name in ("cat", "dog") for i in range(5)]
        assert [(each.label, each.predicted) for each in of_row] == expected


def test_missing_vectors_are_named_and_not_bought(shell: tuple[ClientShell, FakeVendor]) -> None:
    client, vendor = shell
    (client.data / "sketch" / "dog" / "9.png").write_bytes((client.folder / "pictures" / "00002.png").read_bytes())
    client.distill()
    billed = vendor.billed_units
    with pytest.raises(SystemExit, match=r"lacks 1 canonical vectors: .* evaluate --teacher"):
        vector_predictions(client.run_folder, _environment(client))
    assert vendor.billed_units == billed
