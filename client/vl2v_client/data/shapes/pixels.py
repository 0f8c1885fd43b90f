"""Raster operations that several styles share. Pictures are float64 `[S, S, 3]` in 0..255."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.floating[Any]]
Plane = NDArray[np.floating[Any]]


def paint_flat(labels: NDArray[np.uint8], colours: Picture) -> Picture:
    """Fill each part with its colour."""
    return colours[labels]


def smooth_noise(side: int, cells: int, rng: np.random.Generator) -> Plane:
    """Return noise `[S, S]`, about standard normal, whose features are `side / cells` pixels wide."""
    coarse = Image.fromarray(rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)


def blur(plane: Plane, radius: float) -> Plane:
    """Blur a plane `[S, S]` of values in 0..1 by a Gaussian of the given radius in pixels."""
    image = Image.fromarray(np.clip(plane * 255.0, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64) / 255.0


def warp(labels: NDArray[np.uint8], amplitude: float, cells: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Displace a map smoothly and at random, as an unsteady hand would.

    Args:
        labels: The map, uint8 `[S, S]`.
        amplitude: Typical displacement in pixels.
        cells: Number of independent displacements along a side.
        rng: Source of the displacement.
    """
    side = labels.shape[0]
    rows, columns = np.mgrid[0:side, 0:side]
    rows = np.clip(np.rint(rows + amplitude * smooth_noise(side, cells, rng)), 0, side - 1).astype(int)
    columns = np.clip(np.rint(columns + amplitude * smooth_noise(side, cells, rng)), 0, side - 1).astype(int)
    displaced: NDArray[np.uint8] = labels[rows, columns]
    return displaced


def find_edges(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Mark the borders between parts, bool `[S, S]`.

    Args:
        labels: The map, uint8 `[S, S]`.
        width: Odd width of the marked line in pixels.
    """
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:, :] |= labels[1:, :] != labels[:-1, :]
    if width <= 1:
        return edges
    image = Image.fromarray(edges.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MaxFilter(width))) > 0


def spread_labels(labels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Grow the parts in front over those behind by `width // 2` pixels, so that an edge takes their colour."""
    return np.asarray(Image.fromarray(labels).filter(ImageFilter.MaxFilter(width)), dtype=np.uint8)


def blend(below: Picture, above: Picture, opacity: Plane) -> Picture:
    """Lay one picture over another; opacity is `[S, S]` in 0..1."""
    return below + (above - below) * opacity[..., None]


def finish(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Clip to 0..255 and reduce to `[size, size, 3]` uint8."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)
