"""Styles draw the same bytes for ever, and look like what they are called."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from vl2v_client.core.values import RGBImage
from vl2v_client.data.styles import STYLES

GOLDEN = {
    ("pencil", 3): "ac8ff284810280a0",
    ("pencil", 8): "f69ded96c5046c1b",
    ("edges", 1): "adb3c5562edf217b",
    ("edges", 3): "adb3c5562edf217b",
    ("posterise", 3): "60a8361c839ff30c",
    ("posterise", 5): "d6012acad346c6b6",
    ("shuffle", 1): "504db28a1c852bdb",
    ("shuffle", 5): "5b06b30ef872a808",
    ("flat", 4): "07358565b8f680b6",
    ("flat", 10): "ff9fc5e587bc486c",
    ("ink", 16): "1d5727d54f21ef11",
    ("ink", 40): "6e52688ca993346c",
    ("toon", 4): "2596776a5d3f1077",
    ("toon", 10): "8be646964bf07686",
}


def _scene(side: int = 56) -> RGBImage:
    """A shaded ground with a bright disc and a dark bar, of integers alone: the same on every machine."""
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([(x * 3 + y) % 151 + 40, (x + y * 2) % 97 + 60, (x * y) % 53 + 30], axis=2)
    pixels[(x - side // 3) ** 2 + (y - side // 3) ** 2 < (side // 5) ** 2] = (230, 190, 60)
    pixels[side * 2 // 3 : side * 3 // 4, side // 4 : side * 3 // 4] = (20, 30, 40)
    return pixels.astype(np.uint8)


def _disc(side: int = 56) -> RGBImage:
    """A dark disc on white."""
    y, x = np.mgrid[0:side, 0:side]
    inside = (x - side // 2) ** 2 + (y - side // 2) ** 2 < (side // 4) ** 2
    return np.repeat(np.where(inside, 60, 240).astype(np.uint8)[..., None], 3, axis=2)


def _noisy_halves(side: int = 56) -> RGBImage:
    """Two grounds, dark left and light right, both with a fine texture."""
    y, x = np.mgrid[0:side, 0:side]
    plane = np.where(x < side // 2, 60, 180) + (x * 7 + y * 13) % 20
    return np.repeat(plane.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(("style", "strength"), GOLDEN)
def test_bytes_are_for_ever(style: str, strength: int) -> None:
    drawn = STYLES[style].draw(_scene(), strength)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == GOLDEN[style, strength]


def test_every_style_has_golden_ends() -> None:
    assert {(name, end) for name, style in STYLES.items() for end in style.strengths} == set(GOLDEN)


@pytest.mark.parametrize("side", [1, 2, 9, 224])
@pytest.mark.parametrize("style", STYLES)
def test_any_size_and_strength_keeps_shape_and_input(style: str, side: int) -> None:
    pixels = _scene(side)
    before = pixels.copy()
    for strength in range(STYLES[style].strengths[0], STYLES[style].strengths[1] + 1):
        drawn = STYLES[style].draw(pixels, strength)
        assert drawn.shape == pixels.shape
        assert drawn.dtype == np.uint8
        assert drawn.flags.c_contiguous
    assert (pixels == before).all()


def test_pencil_draws_the_outline_dark_on_white_and_leaves_grounds_empty() -> None:
    drawn = STYLES["pencil"].draw(_disc(), 5)
    assert drawn[0, 0].tolist() == drawn[28, 28].tolist() == [255, 255, 255]
    assert drawn[28, 14:18].min() < 100  # just inside the disc's edge


def test_edges_draw_the_outline_white_on_black() -> None:
    thin, thick = (STYLES["edges"].draw(_disc(), strength) for strength in (1, 3))
    assert not thin[0, 0].any()
    assert not thin[28, 28].any()
    assert thin[28, 12:17].max() == 255
    assert (thick > 200).sum() >= (thin > 200).sum()
    red, green = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
    red[:, :10, 0], green[:, :10, 1] = 200, 200
    assert (
        STYLES["edges"].draw(red, 1)[10, 9, 0] == STYLES["edges"].draw(green, 1)[10, 9, 0] == 255
    )  # any channel's edge


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_posterised_channels_have_that_many_levels_from_black_to_white(levels: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    drawn = np.unique(STYLES["posterise"].draw(ramp, levels))
    assert len(drawn) == levels
    assert (drawn[0], drawn[-1]) == (0, 255)


def test_shuffles_are_the_five_ways_that_move_a_channel() -> None:
    pixels = np.array([[[1, 2, 3]]], dtype=np.uint8)
    ways = {tuple(STYLES["shuffle"].draw(pixels, strength)[0, 0].tolist()) for strength in range(1, 6)}
    assert len(ways) == 5
    assert (1, 2, 3) not in ways
    assert all(sorted(way) == [1, 2, 3] for way in ways)


def test_flat_smooths_texture_and_keeps_the_edge_between_grounds() -> None:
    pixels = _noisy_halves()
    drawn = STYLES["flat"].draw(pixels, 10).astype(int)
    inner = slice(4, -4)
    assert drawn[inner, 4:24].std() < pixels[inner, 4:24].std() / 3
    assert (drawn[inner, 27] < 90).all()  # not a blend of both grounds, on either side
    assert (drawn[inner, 28] > 170).all()


def test_ink_is_black_where_it_is_darker_than_around() -> None:
    drawn = STYLES["ink"].draw(_disc(), 40)
    assert set(np.unique(drawn)) == {0, 255}
    assert not drawn[28, 18].any()
    assert drawn[2, 2].all()


def test_toon_has_few_levels_and_dark_lines() -> None:
    scene = _scene()
    flat, inked = STYLES["toon"].draw(scene, 6), STYLES["toon"].draw(scene, 8)
    assert len(np.unique(flat)) <= 6
    assert len(np.unique(inked)) <= 5  # 4 levels and the lines
    line = (inked == 16).all(axis=2)
    assert 0 < line.mean() < 0.5
    assert scene[line].mean() < scene[~line].mean()
