"""The render file: rendered once, the same with any number of threads, whole or absent."""

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v_client.core.errors import CacheError, DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.renders import RenderStore, render_views
from vl2v_client.data.views import View, load_rgb, render_view, views_for
from vl2v_client.planning.queries import pixels_sha
from vl2v_contract.identity import rgb8_sha


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        made.append(Sample(path, "art", index % 2))
    return made


def _views(samples: list[Sample], count: int = 3) -> list[list[View]]:
    return [views_for(f"{index:064x}", (24, 20), count, seed=0) for index in range(len(samples))]


def test_pixels_are_those_of_render_view(tmp_path: Path, samples: list[Sample]) -> None:
    views = _views(samples)
    seen: list[tuple[int, int]] = []

    def watch(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        seen.append((done, total))

    store = render_views(tmp_path / "train.u8", samples, views, size=16, workers=2, progress=watch)
    assert store.pixels.shape == (5, 3, 16, 16, 3)
    assert seen[-1] == (5, 5)
    for row in range(5):
        for column in range(3):
            expected = render_view(load_rgb(samples[row].path), views[row][column], 16)
            assert (store.pixels[row, column] == expected).all()


def test_any_number_of_threads_writes_the_same_file(tmp_path: Path, samples: list[Sample]) -> None:
    files = []
    for workers in (1, 2, 8):
        path = tmp_path / f"{workers}.u8"
        render_views(path, samples, _views(samples), size=16, workers=workers)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


def test_the_file_is_reused_until_an_image_or_a_view_changes(tmp_path: Path, samples: list[Sample]) -> None:
    path = tmp_path / "train.u8"

    def render(count: int = 3) -> tuple[RenderStore, int]:
        return render_views(path, samples, _views(samples, count), size=16), path.stat().st_ino

    _, first = render()
    assert render()[1] == first
    changed, second = render(2)
    assert second != first
    assert changed.pixels.shape[1] == 2
    Image.new("RGB", (24, 20), "red").save(samples[0].path)
    store, third = render(2)
    assert third != second
    assert store.pixels[0, 0, 0, 0].tolist() == [255, 0, 0]


def test_a_link_to_the_images_names_the_same_pixels(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / "link").symlink_to(samples[0].path.parent)
    linked = [replace(sample, path=tmp_path / "link" / sample.path.name) for sample in samples]
    views = [(View(),)] * len(samples)
    first, second = (render_views(tmp_path / "views.u8", which, views, size=8) for which in (samples, linked))
    assert first.of == second.of


def test_a_broken_image_is_named_and_leaves_no_file(tmp_path: Path, samples: list[Sample]) -> None:
    samples[3].path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"3\.png is not an image"):
        render_views(tmp_path / "train.u8", samples, _views(samples), size=16)
    assert not list(tmp_path.glob("train*"))


def test_a_full_disk_is_told_in_bytes(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheError, match=r"needs 11,520 bytes"):
        render_views(tmp_path / "train.u8", samples, _views(samples), size=16)
    assert not list(tmp_path.glob("train*"))


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "needs 11,520 bytes"), (errno.EROFS, r"cannot be written \(Read-only file system")],
)
def test_a_card_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(path: Path, text: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(CacheError, match=words):
        render_views(tmp_path / "train.u8", samples, _views(samples), size=16)


def test_views_of_other_settings_make_room_for_the_new_ones(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.u8"
    render_views(path, samples, _views(samples), size=16)
    reserve, on_disk = os.posix_fallocate, []

    def watched(descriptor: int, offset: int, length: int) -> None:
        on_disk.append(sorted(file.name for file in tmp_path.glob("train*")))
        reserve(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", watched)
    render_views(path, samples, _views(samples, 2), size=16)
    assert on_disk == [["train.partial"]]


def test_rendered_pixels_have_the_name_of_those_that_are_bought(tmp_path: Path, samples: list[Sample]) -> None:
    views = _views(samples)
    store = render_views(tmp_path / "train.u8", samples, views, size=16)
    pixels = render_view(load_rgb(samples[1].path), views[1][2], 16)
    assert pixels_sha(store.pixels[1, 2]) == rgb8_sha(pixels.tobytes(), width=16, height=16)


def test_no_views_and_no_samples_are_empty_stores(tmp_path: Path, samples: list[Sample]) -> None:
    assert render_views(tmp_path / "a.u8", samples, [[] for _ in samples], size=16).pixels.shape == (5, 0, 16, 16, 3)
    assert render_views(tmp_path / "b.u8", [], [], size=16).pixels.shape[0] == 0
