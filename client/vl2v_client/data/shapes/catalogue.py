"""Names of the data set: classes, styles, colours, and which colour goes with which class in which style."""

import hashlib

import numpy as np

CLASS_NAMES: tuple[str, ...] = (
    "house", "tree", "fish", "car", "cup", "umbrella", "flower", "boat", "key", "mushroom",
)  # fmt: skip
"""The benchmark's classes."""

PRETRAINING_CLASS_NAMES: tuple[str, ...] = (
    "apple", "bell", "bottle", "chair", "clock", "hammer", "hat", "kite", "lamp", "leaf", "rocket", "snowman",
    "star", "table",
)  # fmt: skip
"""Classes for the student's pretraining, disjoint from the benchmark's."""

STYLES: tuple[str, ...] = ("photo", "cartoon", "sketch", "painting")
"""The benchmark's styles (domains)."""

DEVELOPMENT_STYLES: tuple[str, ...] = ("neon", "mosaic", "blueprint")
"""Styles for taking decisions on, so that the benchmark's styles stay unseen until they are reported."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 44, 46),
    "orange": (240, 136, 36),
    "yellow": (242, 208, 56),
    "green": (58, 158, 76),
    "cyan": (62, 190, 200),
    "blue": (48, 88, 204),
    "purple": (130, 66, 180),
    "pink": (240, 128, 178),
    "brown": (140, 88, 52),
    "gray": (132, 134, 138),
}
"""Named colours, RGB in 0..255."""


def palette(style: str, part: str) -> dict[str, str]:
    """Return the colour that goes with each class in one style: the shortcut that holds in this style only.

    The assignment is drawn from the style's name and the part ("object" or "background"), never from a seed, so
    every copy of a style has the same shortcut and no two styles share one.
    """
    digest = hashlib.sha256(f"shapes/palette/{style}/{part}".encode()).digest()
    order = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big"))).permutation(len(COLOURS))
    names = tuple(COLOURS)
    assignment: dict[str, str] = {}
    for classes in (CLASS_NAMES, PRETRAINING_CLASS_NAMES):
        assignment |= {name: names[order[index % len(names)]] for index, name in enumerate(classes)}
    return assignment
