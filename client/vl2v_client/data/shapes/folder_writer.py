"""The data set on disk: `root/style/class/NNNN.png`, the layout that every DomainBed data set has."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from vl2v_client.data.shapes.catalogue import CLASS_NAMES, STYLES
from vl2v_client.data.shapes.sample import RESERVED_SEED_START, SHORTCUT_PROBABILITY, render_sample

_MANIFEST = "shapes.json"
_FORMAT_VERSION = 1


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
    _claim_root(root, {"format": _FORMAT_VERSION, "seed": seed, "size": size, "shortcut": shortcut})
    total, done, written = len(styles) * len(class_names) * images_per_class, 0, 0
    for style in styles:
        for class_name in class_names:
            folder = root / style / class_name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(images_per_class):
                path = folder / f"{index:04d}.png"
                if not path.exists():
                    sample = render_sample(style, class_name, index, seed=seed, size=size, shortcut=shortcut)
                    _save_png(Image.fromarray(sample.pixels), path)
                    written += 1
                done += 1
                if progress is not None:
                    progress(done, total)
    return written


def _claim_root(root: Path, facts: dict[str, int | float]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    manifest = root / _MANIFEST
    if not manifest.exists():
        _replace(manifest, json.dumps(facts, indent=2).encode() + b"\n")
    elif (found := json.loads(manifest.read_text())) != facts:
        raise FileExistsError(f"{root} holds shapes with {found}, not {facts}: choose another folder or remove it")


def _save_png(image: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    image.save(temporary, format="PNG")
    temporary.replace(path)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
