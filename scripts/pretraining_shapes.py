"""Pictures of shapes to train the shipped teacher and student on: many at once, of these classes and the data set's.

The fourteen classes here are those of the student's pretraining; none of them is in the data set.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vl2v_client.data.shapes import render_sample
from vl2v_client.data.shapes.objects import OBJECTS, Draw, Part, Points, box, ellipse, polygon, rotate, rounded
from vl2v_client.data.shapes.scene import COLOURS


def star(x: float, y: float, outer: float, inner: float, tips: int) -> Points:
    """Return a star with its first tip upwards, `[2 * tips, 2]`."""
    angles = np.pi * np.arange(2 * tips) / tips - np.pi / 2
    radii = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


def draw_apple(rng: np.random.Generator) -> list[Part]:
    """Draw two overlapping lobes with a stalk and a leaf."""
    radius = rng.uniform(0.48, 0.56)
    return [
        Part(polygon((0.0, -0.4), (0.1, -0.9)), "dark", 0.09),
        Part(rotate(ellipse(0.32, -0.72, 0.25, 0.11), -25, 0.32, -0.72), "accent"),
        Part(ellipse(-0.28, 0.1, radius, 0.66), "main"),
        Part(ellipse(0.28, 0.1, radius, 0.66), "main"),
    ]


def draw_bell(rng: np.random.Generator) -> list[Part]:
    """Draw a flared bell with a clapper and a loop."""
    waist = rng.uniform(0.4, 0.5)
    body = polygon((-0.22, -0.7), (0.22, -0.7), (waist, 0.0), (0.8, 0.55), (-0.8, 0.55), (-waist, 0.0))
    return [
        Part(ellipse(0.0, -0.8, 0.14, 0.14), "dark", 0.08),
        Part(ellipse(0.0, 0.68, 0.17, 0.17), "dark"),
        Part(rounded(body, 1), "main"),
        Part(box(-0.72, 0.38, 0.72, 0.52), "accent"),
    ]


def draw_bottle(rng: np.random.Generator) -> list[Part]:
    """Draw a tall body with a neck, a cork and a label."""
    half, shoulder = rng.uniform(0.3, 0.42), rng.uniform(-0.35, -0.15)
    body = polygon((-0.13, -0.8), (0.13, -0.8), (0.13, shoulder - 0.1), (half, shoulder + 0.15), (half, 1.0))
    mirrored = body[::-1] * (-1.0, 1.0)
    return [
        Part(box(-0.11, -1.0, 0.11, -0.78), "dark"),
        Part(np.concatenate([body, mirrored]), "main"),
        Part(box(-half, 0.2, half, 0.65), "light"),
    ]


def draw_chair(rng: np.random.Generator) -> list[Part]:
    """Draw a side view: back, seat and legs."""
    lean, seat = rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.15)
    return [
        Part(polygon((0.5, seat), (0.6, 1.0)), "dark", 0.11),
        Part(polygon((-0.5, seat), (-0.55, 1.0)), "dark", 0.11),
        Part(polygon((-0.5, seat), (-0.5 - lean, -1.0)), "main", 0.17),
        Part(box(-0.62, seat - 0.1, 0.62, seat + 0.1), "main"),
        Part(box(-0.6 - lean / 2, -0.9, -0.3 - lean / 2, -0.5), "accent"),
    ]


def draw_clock(rng: np.random.Generator) -> list[Part]:
    """Draw a round face with two hands and marks."""
    parts = [Part(ellipse(0.0, 0.0, 0.92, 0.92), "main"), Part(ellipse(0.0, 0.0, 0.72, 0.72), "light")]
    for angle in range(0, 360, 90):
        parts.append(Part(rotate(box(-0.05, -0.68, 0.05, -0.5), angle), "dark"))
    for length, width in ((0.55, 0.08), (0.36, 0.12)):
        hand = rotate(polygon((0.0, 0.0), (0.0, -length)), rng.uniform(0, 360))
        parts.append(Part(hand, "dark", width))
    return parts


def draw_hammer(rng: np.random.Generator) -> list[Part]:
    """Draw a long handle with a head across its top."""
    head = rng.uniform(0.5, 0.65)
    claw = polygon((-0.05, -0.9), (-head - 0.2, -0.55), (-0.05, -0.5))
    return [
        Part(polygon((0.05, -0.7), (0.05, 1.0)), "main", 0.2),
        Part(claw, "dark"),
        Part(box(-0.12, -0.95, head, -0.48), "dark"),
        Part(box(head, -1.0, head + 0.16, -0.43), "accent"),
    ]


def draw_hat(rng: np.random.Generator) -> list[Part]:
    """Draw a tall crown with a band, on a wide brim."""
    half, height = rng.uniform(0.42, 0.55), rng.uniform(0.75, 0.95)
    crown = polygon((-half, 0.5), (-half * 0.9, 0.5 - height), (half * 0.9, 0.5 - height), (half, 0.5))
    return [
        Part(ellipse(0.0, 0.5, 1.0, 0.2), "main"),
        Part(crown, "main"),
        Part(box(-half, 0.2, half, 0.45), "accent"),
    ]


def draw_kite(rng: np.random.Generator) -> list[Part]:
    """Draw a rhombus in four fields, with a tail of bows."""
    half, cross = rng.uniform(0.5, 0.65), rng.uniform(-0.5, -0.35)
    tail = polygon((0.0, 0.35), (0.15, 0.6), (-0.1, 0.8), (0.1, 1.05))
    return [
        Part(tail, "dark", 0.07),
        Part(polygon((0.0, -1.0), (half, cross), (0.0, 0.4), (-half, cross)), "main"),
        Part(polygon((0.0, -1.0), (half, cross), (0.0, cross)), "accent"),
        Part(polygon((0.0, 0.4), (-half, cross), (0.0, cross)), "accent"),
        Part(polygon((-0.2, 0.7), (0.0, 0.8), (-0.2, 0.9)), "light"),
    ]


def draw_lamp(rng: np.random.Generator) -> list[Part]:
    """Draw a shade on a stand with a round foot."""
    top, bottom = rng.uniform(0.25, 0.4), rng.uniform(0.65, 0.8)
    return [
        Part(polygon((0.0, -0.2), (0.0, 0.9)), "dark", 0.12),
        Part(ellipse(0.0, 0.9, 0.5, 0.13), "dark"),
        Part(ellipse(0.0, 0.05, 0.16, 0.16), "light"),
        Part(polygon((-top, -0.95), (top, -0.95), (bottom, -0.1), (-bottom, -0.1)), "main"),
    ]


def draw_leaf(rng: np.random.Generator) -> list[Part]:
    """Draw a pointed leaf with a midrib and veins."""
    half = rng.uniform(0.42, 0.58)
    blade = polygon((0.0, -1.0), (half, -0.35), (half, 0.25), (0.0, 0.75), (-half, 0.25), (-half, -0.35))
    parts = [Part(rounded(blade, 1), "main"), Part(polygon((0.0, -0.8), (0.0, 1.0)), "dark", 0.08)]
    for y in (-0.35, 0.0, 0.35):
        parts.append(Part(polygon((-0.3, y - 0.15), (0.0, y), (0.3, y - 0.15)), "dark", 0.05))
    return parts


def draw_rocket(rng: np.random.Generator) -> list[Part]:
    """Draw a pointed body with fins, a porthole and a flame."""
    half = rng.uniform(0.26, 0.34)
    body = polygon((0.0, -1.0), (half, -0.45), (half, 0.5), (-half, 0.5), (-half, -0.45))
    return [
        Part(polygon((-0.18, 0.5), (0.0, 1.05), (0.18, 0.5)), "light"),
        Part(polygon((half, 0.0), (0.7, 0.65), (half, 0.5)), "accent"),
        Part(polygon((-half, 0.0), (-0.7, 0.65), (-half, 0.5)), "accent"),
        Part(body, "main"),
        Part(ellipse(0.0, -0.25, 0.15, 0.15), "light"),
    ]


def draw_snowman(rng: np.random.Generator) -> list[Part]:
    """Draw three discs, a hat, buttons and stick arms."""
    low, middle, head = rng.uniform(0.48, 0.56), rng.uniform(0.34, 0.4), rng.uniform(0.24, 0.29)
    return [
        Part(polygon((-0.85, -0.3), (0.0, 0.0), (0.85, -0.3)), "dark", 0.06),
        Part(ellipse(0.0, 0.5, low, 0.48), "main"),
        Part(ellipse(0.0, -0.05, middle, 0.36), "main"),
        Part(ellipse(0.0, -0.5, head, 0.26), "main"),
        Part(box(-0.2, -1.0, 0.2, -0.68), "dark"),
        Part(box(-0.34, -0.74, 0.34, -0.64), "dark"),
        Part(ellipse(0.0, 0.0, 0.06, 0.06), "dark"),
        Part(ellipse(0.0, 0.4, 0.06, 0.06), "dark"),
    ]


def draw_star(rng: np.random.Generator) -> list[Part]:
    """Draw a star with five or six tips."""
    inner = rng.uniform(0.38, 0.5)
    tips = int(rng.integers(5, 7))
    return [Part(star(0.0, 0.0, 1.0, inner, tips), "main"), Part(star(0.0, 0.0, 0.5, 0.5 * inner, tips), "accent")]


def draw_table(rng: np.random.Generator) -> list[Part]:
    """Draw a wide top on two splayed legs, with a cross bar."""
    top, splay = rng.uniform(-0.35, -0.2), rng.uniform(0.0, 0.12)
    return [
        Part(polygon((-0.65, 0.4), (0.65, 0.4)), "dark", 0.08),
        Part(polygon((-0.65, top), (-0.65 - splay, 0.9)), "main", 0.15),
        Part(polygon((0.65, top), (0.65 + splay, 0.9)), "main", 0.15),
        Part(box(-1.0, top - 0.1, 1.0, top + 0.1), "main"),
    ]


PRETRAINING_OBJECTS: Mapping[str, Draw] = {
    "apple": draw_apple,
    "bell": draw_bell,
    "bottle": draw_bottle,
    "chair": draw_chair,
    "clock": draw_clock,
    "hammer": draw_hammer,
    "hat": draw_hat,
    "kite": draw_kite,
    "lamp": draw_lamp,
    "leaf": draw_leaf,
    "rocket": draw_rocket,
    "snowman": draw_snowman,
    "star": draw_star,
    "table": draw_table,
}

PRETRAINING_CLASS_NAMES = tuple(PRETRAINING_OBJECTS)


@dataclass(frozen=True)
class ShapeArrays:
    """Pictures with what they show; row `n` of each array describes picture `n`.

    Attributes:
        pixels: RGB, uint8 `[N, size, size, 3]`.
        classes: Position in the list of class names that was asked for, int64 `[N]`.
        styles: Position in the list of styles that was asked for, int64 `[N]`.
        colours: Position of the object's main colour in `scene.COLOURS`, int64 `[N]`.
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
    objects = OBJECTS if class_name in OBJECTS else PRETRAINING_OBJECTS
    samples = [
        render_sample(style, class_name, index, seed=seed, size=size, shortcut=shortcut, objects=objects)
        for index in range(count)
    ]
    colours = np.array([order.index(sample.colour) for sample in samples], dtype=np.int64)
    return np.stack([sample.pixels for sample in samples]), colours
