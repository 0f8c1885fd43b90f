"""One picture of the data set, as a pure function of seed, style, class and index."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.data.shapes.development_styles import DEVELOPMENT_RENDERS
from vl2v_client.data.shapes.drawing_styles import BENCHMARK_STYLES
from vl2v_client.data.shapes.pixels import finish
from vl2v_client.data.shapes.scene import compose_scene

RESERVED_SEED_START = 1_000_000
"""Seeds below are the benchmark's; from here on they are the training seeds of the shipped teacher and student."""

SHORTCUT_PROBABILITY = 0.8
"""How often a colour is the class's own in its style; else it is any colour at random."""

_RENDERS = BENCHMARK_STYLES | DEVELOPMENT_RENDERS
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        pixels: RGB, uint8 `[size, size, 3]`.
        colour: The name of the object's main colour, one of `catalogue.COLOURS`.
    """

    pixels: NDArray[np.uint8]
    colour: str


def render_sample(
    style: str,
    class_name: str,
    index: int,
    *,
    seed: int,
    size: int = 64,
    shortcut: float = SHORTCUT_PROBABILITY,
) -> Sample:
    """Draw one picture; the same arguments give the same pixels, whatever was drawn before.

    Args:
        style: One of `STYLES` or `DEVELOPMENT_STYLES`.
        class_name: One of `CLASS_NAMES` or `PRETRAINING_CLASS_NAMES`.
        index: Number of the picture within its style and class.
        seed: Number of the data set.
        size: Width and height in pixels.
        shortcut: Probability that the object's colour (and, apart from it, the background's) goes with the class.

    Raises:
        KeyError: Style or class is unknown.
    """
    digest = hashlib.sha256(f"shapes/{seed}/{style}/{class_name}/{index}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    scene = compose_scene(style, class_name, rng, side=_OVERSAMPLING * size, shortcut=shortcut)
    return Sample(finish(_RENDERS[style](scene, rng), size), scene.colour_name)
