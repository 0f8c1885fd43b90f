"""Many pictures at once, in memory, drawn by several processes: for training the shipped teacher and student."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vl2v_client.data.shapes.catalogue import COLOURS
from vl2v_client.data.shapes.sample import render_sample


@dataclass(frozen=True)
class ShapeArrays:
    """Pictures with what they show; row `n` of each array describes picture `n`.

    Attributes:
        pixels: RGB, uint8 `[N, size, size, 3]`.
        classes: Position in the list of class names that was asked for, int64 `[N]`.
        styles: Position in the list of styles that was asked for, int64 `[N]`.
        colours: Position of the object's main colour in `catalogue.COLOURS`, int64 `[N]`.
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    styles: NDArray[np.int64]
    colours: NDArray[np.int64]


def render_arrays(
    styles: Sequence[str],
    class_names: Sequence[str],
    images_per_class: int,
    *,
    seed: int,
    shortcut: float,
    size: int = 64,
    workers: int = 1,
) -> ShapeArrays:
    """Draw `images_per_class` pictures of every class in every style, ordered by style, class and index.

    Args:
        styles: Names of styles.
        class_names: Names of classes.
        images_per_class: Pictures per style and class.
        seed: Number of the data set.
        shortcut: Probability that a colour goes with the class, see `render_sample`.
        size: Width and height in pixels.
        workers: Number of processes; 1 draws in this one.
    """
    cells = list(itertools.product(range(len(styles)), range(len(class_names))))
    names = [(styles[style], class_names[label]) for style, label in cells]
    draw = partial(_render_cell, count=images_per_class, seed=seed, shortcut=shortcut, size=size)
    if workers == 1:
        drawn = list(map(draw, names))
    else:
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(draw, names))
    return ShapeArrays(
        pixels=np.concatenate([pixels for pixels, _ in drawn]),
        classes=np.repeat(np.array([label for _, label in cells], dtype=np.int64), images_per_class),
        styles=np.repeat(np.array([style for style, _ in cells], dtype=np.int64), images_per_class),
        colours=np.concatenate([colours for _, colours in drawn]),
    )


def _render_cell(
    names: tuple[str, str], *, count: int, seed: int, shortcut: float, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    style, class_name = names
    order = tuple(COLOURS)
    samples = [
        render_sample(style, class_name, index, seed=seed, size=size, shortcut=shortcut) for index in range(count)
    ]
    colours = np.array([order.index(sample.colour) for sample in samples], dtype=np.int64)
    return np.stack([sample.pixels for sample in samples]), colours
