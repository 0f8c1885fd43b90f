"""Styles that no data set has: renderings that are strange to a student and familiar to a large teacher.

Each is a function of pixels and one integer, in integer arithmetic alone, so that every machine draws the same bytes.
Lengths are given in pixels of a 224-pixel square and scale with the picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import RGBImage

_REFERENCE_SIDE = 224
_PERMUTATIONS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_SHADOW_GUARD = 16  # added to both sides of a ratio, so that noise in dark places draws no lines
_PAPER_GRAIN = 16  # a pixel must be that much darker than its surroundings, in 255ths, to be drawn at all
_DARK_STROKE, _LINE = 140, 16  # pencil's strokes that a cartoon has, and how dark it draws them
_INK_SHARE = 90  # of the local mean, in percent: darker pixels are inked

Plane = NDArray[np.int32]  # `[S, S]` integers


@dataclass(frozen=True, slots=True)
class Style:
    """A way to draw.

    Attributes:
        draw: Pixels `[S, S, 3]` uint8 and a strength, to pixels of that shape.
        strengths: Smallest and largest strength; what it means is in `draw`'s docstring.
    """

    draw: Callable[[RGBImage, int], RGBImage]
    strengths: tuple[int, int]


def draw_pencil(pixels: RGBImage, strength: int) -> RGBImage:
    """Draw dark strokes on white paper, where a pixel is darker than its surroundings; `strength`: their radius."""
    radius = _scaled(strength, pixels)
    luma = _luma(pixels)
    around = _box_mean(_box_mean(luma, radius), radius)
    ratio = np.minimum((luma + _SHADOW_GUARD) * 255 // (around + _SHADOW_GUARD), 255)
    return _grey(np.clip(255 - (255 - _PAPER_GRAIN - ratio) * 5, 0, 255))


def draw_edges(pixels: RGBImage, strength: int) -> RGBImage:
    """Draw thick white outlines on black: the largest difference within `strength` pixels in any channel."""
    radius = _scaled(strength, pixels)
    contrast = (_spread(pixels, radius, np.maximum) - _spread(pixels, radius, np.minimum)).max(axis=2)
    return _grey(np.minimum(contrast.astype(np.int32) * 2, 255))


def draw_posterised(pixels: RGBImage, strength: int) -> RGBImage:
    """Render each channel in `strength` levels, which reach from 0 to 255."""
    levels = np.arange(256) * strength // 256 * 255 // (strength - 1)
    return levels.astype(np.uint8)[pixels]


def draw_shuffled(pixels: RGBImage, strength: int) -> RGBImage:
    """Let red, green and blue change places; `strength`: which of the five ways."""
    return np.ascontiguousarray(pixels[..., _PERMUTATIONS[strength - 1]])


def draw_flat(pixels: RGBImage, strength: int) -> RGBImage:
    """Render texture removed, edges kept, by Kuwahara's filter; `strength`: the side of its windows, less one.

    Each pixel takes the mean of the calmest of the four windows that have it in a corner.
    """
    radius = _scaled(strength, pixels)
    area = (radius + 1) ** 2
    luma = _luma(pixels)
    sums = [_corner_sums(pixels[..., band].astype(np.int32), radius) for band in range(3)]
    totals, squares = (_corner_sums(of_luma, radius).astype(np.int64) for of_luma in (luma, luma * luma))
    spread = area * squares - totals**2
    side = len(luma)
    calmest, *others = [(slice(y, y + side), slice(x, x + side)) for y in (0, radius) for x in (0, radius)]
    least, chosen = spread[calmest], [band[calmest] for band in sums]
    for window in others:
        calmer = spread[window] < least
        least = np.where(calmer, spread[window], least)
        chosen = [np.where(calmer, band[window], before) for band, before in zip(sums, chosen, strict=True)]
    return (np.stack(chosen, axis=2) // area).astype(np.uint8)


def draw_ink(pixels: RGBImage, strength: int) -> RGBImage:
    """Render as a black and white stencil: inked where a pixel is darker than the mean within `strength` pixels."""
    luma = _box_mean(_luma(pixels), _scaled(1, pixels))
    around = _box_mean(luma, _scaled(strength, pixels))
    return _grey(np.where((luma + _SHADOW_GUARD) * 100 < (around + _SHADOW_GUARD) * _INK_SHARE, 0, 255))


def draw_toon(pixels: RGBImage, strength: int) -> RGBImage:
    """Render flat areas in 4 to 7 levels under dark lines, as in a cartoon; `strength`: as of `draw_flat`.

    Of the strengths one in three has no lines, one those of `draw_pencil` and one those of `draw_ink`.
    """
    flat = draw_posterised(draw_flat(pixels, strength), 4 + strength % 4)
    if strength % 3 == 0:
        return flat
    lines = draw_pencil(pixels, 4) < _DARK_STROKE if strength % 3 == 1 else draw_ink(pixels, 2 * strength) == 0
    return np.where(lines, np.uint8(_LINE), flat)


STYLES: Mapping[str, Style] = {
    "pencil": Style(draw_pencil, (3, 8)),
    "edges": Style(draw_edges, (1, 3)),
    "posterise": Style(draw_posterised, (3, 5)),
    "shuffle": Style(draw_shuffled, (1, 5)),
    "flat": Style(draw_flat, (4, 10)),
    "ink": Style(draw_ink, (16, 40)),
    "toon": Style(draw_toon, (4, 10)),
}
"""By the name that a view stores. Names, meanings and pixels are for ever: a better pencil is another style."""


def _scaled(length: int, pixels: RGBImage) -> int:
    return max(1, (2 * length * len(pixels) + _REFERENCE_SIDE) // (2 * _REFERENCE_SIDE))


def _luma(pixels: RGBImage) -> Plane:
    red, green, blue = (pixels[..., band].astype(np.int32) for band in range(3))
    return (77 * red + 150 * green + 29 * blue) >> 8


def _grey(plane: NDArray[np.integer]) -> RGBImage:
    return np.repeat(plane.astype(np.uint8)[..., None], 3, axis=2)


def _box_mean(plane: Plane, radius: int) -> Plane:
    """Render mean over the `2 radius + 1` square around each pixel; the border repeats."""
    side = 2 * radius + 1
    return _window_sums(np.pad(plane, radius, mode="edge"), side) // (side * side)


def _corner_sums(plane: Plane, radius: int) -> Plane:
    """Render `[S + radius, S + radius]` sums over windows of side `radius + 1`; each pixel lies in a corner of four."""
    return _window_sums(np.pad(plane, radius, mode="edge"), radius + 1)


def _window_sums(plane: Plane, side: int) -> Plane:
    """Sum windows by running totals, which wrap around past 2^32; their differences do not."""
    for axis in (0, 1):
        before = [(1, 0), (0, 0)] if axis == 0 else [(0, 0), (1, 0)]
        totals = np.cumsum(np.pad(plane.astype(np.uint32), before), axis=axis, dtype=np.uint32)
        ends = np.arange(side, totals.shape[axis])
        plane = (totals.take(ends, axis=axis) - totals.take(ends - side, axis=axis)).astype(np.int32)
    return plane


def _spread(pixels: RGBImage, radius: int, choose: np.ufunc) -> NDArray[np.uint8]:
    """Render the largest, or smallest, value within `radius` of each pixel, per channel; the border repeats."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, [(radius, radius), (radius, radius), (0, 0)], mode="edge")
    rows = padded[:height]
    for shift in range(1, 2 * radius + 1):
        rows = choose(rows, padded[shift : shift + height])
    result: NDArray[np.uint8] = rows[:, :width]
    for shift in range(1, 2 * radius + 1):
        result = choose(result, rows[:, shift : shift + width])
    return result
