"""The procedural data set: deterministic, complete on disk, and apart from the shipped models' pictures."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from pretraining_shapes import PRETRAINING_OBJECTS, render_arrays

from vl2v_client.data.shapes import RESERVED_SEED_START, render_sample, write_shapes
from vl2v_client.data.shapes.drawing_styles import DEVELOPMENT_STYLES, STYLES
from vl2v_client.data.shapes.objects import CLASS_NAMES, OBJECTS
from vl2v_client.data.shapes.scene import COLOURS, palette

SOME = ("house", "key")
DRAWN_BY = ("2.4.6", "13.0.0")
"""Versions of NumPy and Pillow."""


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.mark.parametrize("style", STYLES + DEVELOPMENT_STYLES)
def test_sample_depends_on_its_arguments_only(style: str) -> None:
    first = render_sample(style, "car", 3, seed=5)
    render_sample(style, "tree", 0, seed=9)
    again = render_sample(style, "car", 3, seed=5)
    assert first.pixels.shape == (64, 64, 3)
    assert first.pixels.dtype == np.uint8
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, render_sample(style, "car", 4, seed=5).pixels)
    assert not np.array_equal(first.pixels, render_sample(style, "car", 3, seed=6).pixels)


@pytest.mark.skipif((np.__version__, PIL.__version__) != DRAWN_BY, reason="other versions may draw other bytes")
def test_pictures_are_drawn_as_they_were_when_the_figures_were_made() -> None:
    digest = hashlib.sha256()
    for style in STYLES + DEVELOPMENT_STYLES:
        for name in CLASS_NAMES:
            digest.update(render_sample(style, name, 0, seed=5).pixels.tobytes())
    assert digest.hexdigest() == "0bc815ca8528c949ce6d94e577d23a704711e89ccb828bb379e94faf3141ba9a"


def test_every_class_is_visible_in_every_style() -> None:
    for objects, style in itertools.product((OBJECTS, PRETRAINING_OBJECTS), STYLES + DEVELOPMENT_STYLES):
        for name in objects:
            assert render_sample(style, name, 0, seed=1, objects=objects).pixels.std() > 8, (style, name)


def test_names_are_disjoint() -> None:
    assert not set(CLASS_NAMES) & set(PRETRAINING_OBJECTS)
    assert len(CLASS_NAMES) == 10
    assert not set(STYLES) & set(DEVELOPMENT_STYLES)


def test_files_have_the_domainbed_layout(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    written = write_shapes(
        tmp_path, seed=1, images_per_class=2, class_names=SOME, progress=lambda *counts: calls.append(counts)
    )
    assert written == len(STYLES) * len(SOME) * 2
    assert calls[-1] == (written, written)
    assert set(read_tree(tmp_path)) == {
        f"{style}/{name}/{index:04d}.png" for style in STYLES for name in SOME for index in range(2)
    }
    pixels = np.asarray(Image.open(tmp_path / "sketch" / "key" / "0001.png"))
    assert np.array_equal(pixels, render_sample("sketch", "key", 1, seed=1).pixels)


def test_rewriting_restores_only_what_is_missing(tmp_path: Path) -> None:
    write_shapes(tmp_path, seed=1, images_per_class=1, class_names=SOME)
    before = read_tree(tmp_path)
    (tmp_path / "photo" / "house" / "0000.png").unlink()
    assert write_shapes(tmp_path, seed=1, images_per_class=1, class_names=SOME) == 1
    assert read_tree(tmp_path) == before


def test_order_does_not_matter(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", seed=1, images_per_class=2, class_names=SOME)
    write_shapes(tmp_path / "b", seed=1, images_per_class=1, class_names=SOME[::-1], styles=STYLES[::-1])
    write_shapes(tmp_path / "b", seed=1, images_per_class=2, class_names=SOME)
    assert read_tree(tmp_path / "a") == read_tree(tmp_path / "b")


def test_other_data_set_in_the_folder_is_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path, seed=1, images_per_class=1, class_names=SOME)
    with pytest.raises(FileExistsError, match="another folder"):
        write_shapes(tmp_path, seed=2, images_per_class=1, class_names=SOME)


@pytest.mark.parametrize("seed", [-1, RESERVED_SEED_START])
def test_seeds_of_the_shipped_models_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        write_shapes(tmp_path, seed=seed, images_per_class=1)


def test_palettes_differ_between_styles() -> None:
    palettes = [tuple(palette(style, part).items()) for style in STYLES for part in ("object", "background")]
    assert len(set(palettes)) == len(palettes)
    assert {palette("photo", "object")[name] for name in CLASS_NAMES} == set(COLOURS)


def test_shortcut_decides_how_often_the_colour_is_the_classes_own() -> None:
    expected = list(COLOURS).index(palette("cartoon", "object")["boat"])
    always, never = (render_arrays(["cartoon"], ["boat"], 40, seed=3, shortcut=p).colours for p in (1.0, 0.0))
    assert (always == expected).all()
    assert (never == expected).mean() < 0.4


def test_arrays_are_ordered_by_style_class_and_index() -> None:
    data = render_arrays(["photo", "neon"], SOME, 2, seed=4, shortcut=0.5, workers=1)
    assert data.pixels.shape == (8, 64, 64, 3)
    assert data.styles.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.classes.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert np.array_equal(data.pixels[6], render_sample("neon", "key", 0, seed=4, shortcut=0.5).pixels)
