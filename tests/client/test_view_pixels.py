"""Pixels of views: those of `render_view` at any size, whatever is kept of them on disk."""

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data import pixel_file, view_pixels
from vl2v_client.data.images import load_rgb
from vl2v_client.data.pixel_file import PixelFile
from vl2v_client.data.rendering import render_view
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence, canonical_pixels
from vl2v_client.data.views import View, views_for
from vl2v_client.planning.queries import pixels_sha
from vl2v_contract.identity import rgb8_sha

EACH = 3 * 16 * 16
"""Bytes of one view of these tests."""


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    (tmp_path / "data").mkdir()
    for index in range(5):
        path = tmp_path / "data" / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        made.append(Sample(path, "art", index % 2))
    return made


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded."""
    counts: Counter[str] = Counter()

    def counted(path: Path) -> Image.Image:
        counts[path.stem] += 1
        return load_rgb(path)

    monkeypatch.setattr(view_pixels, "load_rgb", counted)
    return counts


def _views(samples: list[Sample], count: int = 3) -> list[list[View]]:
    return [views_for(f"{index:064x}", (24, 20), count, seed=0) for index in range(len(samples))]


def _expected(samples: list[Sample], size: int = 16) -> np.ndarray:
    views = _views(samples)
    of_each = [[render_view(load_rgb(one.path), view, size) for view in views[row]] for row, one in enumerate(samples)]
    return np.array(of_each)


ROWS, VIEWS = np.array([4, 0, 4, 4, 2]), np.array([1, 2, 0, 1, 2])


def test_pixels_are_those_of_render_view_at_every_size(samples: list[Sample]) -> None:
    pixels = ViewPixels(samples, _views(samples), 16)
    for size in (16, 40, 7):
        sized, expected = pixels.at(size), _expected(samples, size)
        assert sized.shape == expected.shape == (5, 3, size, size, 3)
        np.testing.assert_array_equal(sized[ROWS, VIEWS], expected[ROWS, VIEWS])
        np.testing.assert_array_equal(sized[1:4, 2], expected[1:4, 2])
        np.testing.assert_array_equal(ViewSequence(sized, 2)[1:9], expected[:, :2].reshape(10, size, size, 3)[1:9])
        assert pixels.at(size) is sized.at(16).at(size) is sized
        assert sized.of == pixels.of


@pytest.mark.parametrize("room", [0, 1, 7, 15, 100])
def test_what_the_disk_has_no_room_for_is_rendered_again_to_the_same_pixels(
    tmp_path: Path, samples: list[Sample], decoded: Counter[str], room: int
) -> None:
    file = PixelFile(tmp_path, room * EACH + EACH // 2)
    pixels, expected = ViewPixels(samples, _views(samples), 16, file), _expected(samples)
    for _ in range(2):
        for row in range(5):
            for view in range(3):
                np.testing.assert_array_equal(pixels[np.array([row]), view][0], expected[row, view])
    assert decoded.total() == 15 + max(0, 15 - room)
    other = ViewPixels(samples, _views(samples), 16, file)  # it gets what the first has left
    np.testing.assert_array_equal(ViewSequence(other, 3)[:], expected.reshape(-1, 16, 16, 3))
    np.testing.assert_array_equal(ViewSequence(pixels, 3)[:], expected.reshape(-1, 16, 16, 3))
    if room:
        assert os.fstat(file._descriptor).st_size <= room * EACH
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_sizes_of_one_run_share_the_bound(tmp_path: Path, samples: list[Sample], decoded: Counter[str]) -> None:
    pixels = ViewPixels(samples, _views(samples), 16, PixelFile(tmp_path, 20 * EACH))
    large, expected = pixels.at(32), _expected(samples, 32)  # four times the bytes, room for one
    for _ in range(2):
        np.testing.assert_array_equal(ViewSequence(pixels, 3)[:], _expected(samples).reshape(-1, 16, 16, 3))
        np.testing.assert_array_equal(ViewSequence(large, 3)[:], expected.reshape(-1, 32, 32, 3))
    assert decoded == Counter({str(row): 3 for row in range(5)})
    np.testing.assert_array_equal(large[np.array([0]), 0][0], expected[0, 0])
    assert decoded["0"] == 3


def test_a_file_is_decoded_once_for_all_that_is_read_of_it_together(
    samples: list[Sample], decoded: Counter[str]
) -> None:
    ViewPixels(samples, _views(samples), 16)[ROWS, VIEWS]
    assert decoded == Counter({"4": 1, "0": 1, "2": 1})


def _refuse(*_arguments: object, **_options: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_short(descriptor: int, data: memoryview, _offset: int) -> int:
    os.ftruncate(descriptor, 2**20)  # so that reading it gives zeros
    return data.nbytes // 2


@pytest.mark.parametrize(
    ("place", "failure"),
    [("os.pwrite", _refuse), ("os.pwrite", _cut_short), ("os.preadv", _refuse), ("pixel_file.TemporaryFile", _refuse)],
)
def test_a_full_or_failing_disk_changes_no_pixel(
    tmp_path: Path,
    samples: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    failure: Callable[..., Any],
) -> None:
    module, name = place.split(".")
    monkeypatch.setattr(os if module == "os" else pixel_file, name, failure)
    pixels = ViewPixels(samples, _views(samples), 16, PixelFile(tmp_path))
    for _ in range(2):
        np.testing.assert_array_equal(ViewSequence(pixels, 3)[:], _expected(samples).reshape(-1, 16, 16, 3))


def test_a_link_to_the_images_names_the_same_pixels(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / "link").symlink_to(samples[0].path.parent)
    linked = [replace(sample, path=tmp_path / "link" / sample.path.name) for sample in samples]
    assert canonical_pixels(samples, 8).of == canonical_pixels(linked, 8).of


def test_files_and_views_name_the_pixels(samples: list[Sample]) -> None:
    names = {ViewPixels(samples, _views(samples, count), 16).of for count in (2, 3)}
    os.utime(samples[2].path, ns=(1, 1))
    names.add(ViewPixels(samples, _views(samples), 16).of)
    assert len(names) == 3


def test_a_broken_image_is_named_and_the_others_are_read(samples: list[Sample]) -> None:
    samples[3].path.write_bytes(b"broken")
    pixels = ViewPixels(samples, _views(samples), 16)
    with pytest.raises(DataError, match=r"3\.png is not an image"):
        pixels[1:5, 0]
    np.testing.assert_array_equal(pixels[0:3, 0], _expected(samples[:3])[:, 0])


def test_an_image_that_changes_on_the_way_is_named(tmp_path: Path, samples: list[Sample]) -> None:
    pixels = ViewPixels(samples, _views(samples), 16, PixelFile(tmp_path))
    before = pixels[0:5, 0]
    Image.new("RGB", (24, 20), "red").save(samples[1].path)
    np.testing.assert_array_equal(pixels[0:5, 0], before)
    with pytest.raises(DataError, match=r"1\.png has changed since the run began"):
        pixels[0:5, 1]
    samples[1].path.unlink()
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        canonical_pixels(samples, 16)


def test_rendered_pixels_have_the_name_of_those_that_are_bought(samples: list[Sample]) -> None:
    views = _views(samples)
    rendered = ViewPixels(samples, views, 16)[np.array([1]), 2][0]
    pixels = render_view(load_rgb(samples[1].path), views[1][2], 16)
    assert pixels_sha(rendered) == rgb8_sha(pixels.tobytes(), width=16, height=16)


def test_no_views_and_no_samples_are_empty(samples: list[Sample]) -> None:
    pixels = ViewPixels(samples, [[] for _ in samples], 16)
    assert (pixels.shape, len(ViewSequence(pixels, 0))) == ((5, 0, 16, 16, 3), 0)
    assert canonical_pixels([], 16).shape == (0, 0, 16, 16, 3)


def test_views_of_other_numbers_are_refused(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="views for 4"):
        ViewPixels(samples, _views(samples)[:4], 16)
    with pytest.raises(ValueError, match="same number"):
        ViewPixels(samples, [*_views(samples)[:4], []], 16)
