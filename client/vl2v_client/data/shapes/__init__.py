"""The procedural domain-generalisation data set "shapes": ten object classes drawn in several styles.

Each picture is a pure function of seed, style, class and index. The layout is that of DomainBed's data sets,
`root/style/class/NNNN.png`.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v_client.data.drawn import RECORD
from vl2v_client.data.shapes.drawing_styles import RENDERS, STYLES, finish
from vl2v_client.data.shapes.objects import CLASS_NAMES, OBJECTS, Draw
from vl2v_client.data.shapes.scene import compose_scene

RESERVED_SEED_START = 1_000_000
"""Seeds below are the benchmark's; from here on they are the training seeds of the shipped teacher and student."""

SHORTCUT_PROBABILITY = 0.8  # how often a colour is the class's own in its style; else it is any colour at random


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        pixels: RGB, uint8 `[size, size, 3]`.
        colour: The name of the object's main colour, one of `scene.COLOURS`.
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
    objects: Mapping[str, Draw] = OBJECTS,
) -> Sample:
    """Draw one picture; the same arguments give the same pixels, whatever was drawn before.

    Args:
        style: One of `STYLES` or `DEVELOPMENT_STYLES`.
        class_name: One of `CLASS_NAMES`, or of `objects`.
        index: Number of the picture within its style and class.
        seed: Number of the data set.
        size: Width and height in pixels.
        shortcut: Probability that the object's colour (and, apart from it, the background's) goes with the class.
        objects: What composes an object, by class name.

    Raises:
        KeyError: Style or class is unknown.
    """
    digest = hashlib.sha256(f"shapes/{seed}/{style}/{class_name}/{index}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    # drawn at twice the size, and reduced
    scene = compose_scene(style, class_name, rng, side=2 * size, shortcut=shortcut, objects=objects)
    return Sample(finish(RENDERS[style](scene, rng), size), scene.colour_name)


def write_shapes(
    root: Path,
    *,
    seed: int,
    styles: Sequence[str] = STYLES,
    images_per_class: int,
    size: int = 64,
    class_names: Sequence[str] = CLASS_NAMES,
    shortcut: float = SHORTCUT_PROBABILITY,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the data set, or what is missing of it; files that are there already are left alone.

    Args:
        root: Folder of the data set; made if absent.
        seed: Number of the data set, 0 to `RESERVED_SEED_START - 1`.
        styles: Styles to write, one folder each.
        images_per_class: Pictures per style and class.
        size: Width and height in pixels.
        class_names: Classes to write, one folder in each style.
        shortcut: Probability that a colour goes with the class, see `render_sample`.
        progress: Called after each picture with how many are done and how many there are.

    Returns:
        The number of pictures written by this call.

    Raises:
        ValueError: The seed belongs to the shipped models' training pictures.
        FileExistsError: `root` holds a data set of another seed, size or shortcut.
    """
    if not 0 <= seed < RESERVED_SEED_START:
        raise ValueError(f"seed {seed} is not in 0..{RESERVED_SEED_START - 1}: higher seeds trained the shipped models")
    facts = {"format": 1, "seed": seed, "size": size, "shortcut": shortcut}
    root.mkdir(parents=True, exist_ok=True)
    manifest = root / RECORD
    if not manifest.exists():
        _write(manifest, lambda file: file.write_text(json.dumps(facts, indent=2) + "\n"))
    elif (found := json.loads(manifest.read_text())) != facts:
        raise FileExistsError(f"{root} holds shapes with {found}, not {facts}: choose another folder or remove it")
    total, written = len(styles) * len(class_names) * images_per_class, 0
    pictures = itertools.product(styles, class_names, range(images_per_class))
    for done, (style, class_name, index) in enumerate(pictures, start=1):
        path = root / style / class_name / f"{index:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sample = render_sample(style, class_name, index, seed=seed, size=size, shortcut=shortcut)
            _write(path, partial(Image.fromarray(sample.pixels).save, format="PNG"))
            written += 1
        if progress is not None:
            progress(done, total)
    return written


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is whole before it gets its name."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    write(temporary)
    temporary.replace(path)
