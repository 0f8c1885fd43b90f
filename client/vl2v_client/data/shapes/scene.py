"""Scenes: an object with clutter on a background, as a map of part numbers and a colour for each number.

Every style starts from the same map, so styles differ in how they draw and never in what.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vl2v_client.data.shapes.objects import CLASS_NAMES, OBJECTS, Draw, Part, Role, box, ellipse, polygon

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


def palette(style: str, part: str, class_names: Iterable[str] = CLASS_NAMES) -> dict[str, str]:
    """Return the colour that goes with each class in one style: the shortcut that holds in this style only.

    The assignment is drawn from the style's name and the part ("object" or "background"), never from a seed, so
    every copy of a style has the same shortcut and no two styles share one.
    """
    digest = hashlib.sha256(f"shapes/palette/{style}/{part}".encode()).digest()
    order = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big"))).permutation(list(COLOURS))
    return dict(zip(class_names, map(str, itertools.cycle(order)), strict=False))


_WHITE = np.array([246.0, 244.0, 238.0])
_BLACK = np.array([34.0, 30.0, 36.0])


@dataclass(frozen=True)
class Scene:
    """What is in one picture, before any style.

    Attributes:
        labels: Part number at each pixel, uint8 `[S, S]`; 0 is the background.
        colours: RGB of each part number, float64 `[P, 3]` in 0..255; row 0 is the background's.
        first_object_label: Part numbers from here on belong to the object, lower ones to clutter.
        colour_name: The name of the object's main colour.
    """

    labels: NDArray[np.uint8]
    colours: NDArray[np.float64]
    first_object_label: int
    colour_name: str

    @property
    def side(self) -> int:
        """Width and height of the map in pixels."""
        return len(self.labels)

    @property
    def object_mask(self) -> NDArray[np.bool_]:
        """Pixels of the object, bool `[S, S]`."""
        return self.labels >= self.first_object_label


def compose_scene(
    style: str,
    class_name: str,
    rng: np.random.Generator,
    *,
    side: int,
    shortcut: float,
    objects: Mapping[str, Draw] = OBJECTS,
) -> Scene:
    """Draw what one picture shows: class, pose, colours, clutter and background, on a map `side` pixels wide and high.

    `shortcut` is the probability that a colour is the class's own in this style, not any colour at random.
    """

    def any_colour() -> str:
        return str(rng.choice(list(COLOURS)))

    def choose(part: str) -> str:
        own, anything = palette(style, part, objects)[class_name], any_colour()
        return own if rng.random() < shortcut else anything

    colour_name = choose("object")
    backdrop = np.array(COLOURS[choose("background")], dtype=float)
    other = [name for name in COLOURS if name != colour_name]
    main, accent = _vary(COLOURS[colour_name], rng), _vary(COLOURS[str(rng.choice(other))], rng)
    tones: dict[Role, NDArray[np.float64]] = {
        "main": main,
        "accent": 0.65 * accent + 0.35 * _WHITE,
        "dark": 0.2 * main + 0.8 * _BLACK,
        "light": 0.06 * main + 0.94 * _WHITE,
    }
    colours = [_backdrop_tone(backdrop, main, rng)]
    clutter = _draw_clutter(rng)
    colours += [0.55 * _vary(COLOURS[any_colour()], rng) + 0.45 * colours[0] for _ in clutter]
    parts = objects[class_name](rng)
    colours += [tones[part.role] + rng.normal(0.0, 4.0, 3) for part in parts]
    labels = _rasterise(clutter + _place(parts, rng), side)
    return Scene(labels, np.clip(np.stack(colours), 0, 255), 1 + len(clutter), colour_name)


def _vary(colour: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    return np.clip(np.array(colour) * rng.uniform(0.88, 1.1) + rng.normal(0.0, 7.0, 3), 0, 255)


def _backdrop_tone(
    colour: NDArray[np.float64], main: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    # Paler or darker than the object, so that it stays visible on a background of its own colour.
    pale, deep = 0.45 * colour + 0.55 * _WHITE, 0.4 * colour + 0.6 * _BLACK
    preferred, other = (pale, deep) if rng.random() < 0.7 else (deep, pale)
    return preferred if np.linalg.norm(preferred - main) > 105.0 else other


def _draw_clutter(rng: np.random.Generator) -> list[Part]:
    """Return two to five small distractors, in units of the picture: [-1, 1] is its full width."""
    parts = []
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(-0.95, 0.95, 2)
        radius = rng.uniform(0.08, 0.2)
        kind = rng.integers(4)
        if kind == 0:
            parts.append(Part(ellipse(x, y, radius, radius * rng.uniform(0.6, 1.0)), "accent"))
        elif kind == 1:
            corners = polygon((x - radius, y + radius), (x + radius, y + radius * 0.6), (x, y - radius))
            parts.append(Part(corners, "accent"))
        elif kind == 2:
            parts.append(Part(box(x - radius, y - radius * 0.7, x + radius, y + radius * 0.7), "accent"))
        else:
            dx, dy = rng.uniform(-0.3, 0.3, 2)
            parts.append(Part(polygon((x - dx, y - dy), (x + dx, y + dy)), "accent", 0.05))
    return parts


def _place(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """Give an object its pose: mirror, size, stretch, slant, rotation and place in the picture."""
    scale, stretch = rng.uniform(0.6, 0.85), rng.uniform(0.88, 1.14)
    angle, slant = np.radians(rng.normal(0.0, 10.0)), rng.normal(0.0, 0.07)
    mirror = rng.choice([-1.0, 1.0])
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shape = np.array([[mirror * scale * stretch, 0.0], [slant * scale, scale / stretch]])
    shift = rng.uniform(-1.0, 1.0, 2) * (0.95 - scale) * 0.7
    matrix = shape @ rotation
    return [Part(part.points @ matrix + shift, part.role, part.stroke_width * scale) for part in parts]


def _rasterise(parts: list[Part], side: int) -> NDArray[np.uint8]:
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    for label, part in enumerate(parts, start=1):
        path = [(float(x), float(y)) for x, y in (part.points + 1.0) * (side / 2)]
        if not part.stroke_width:
            draw.polygon(path, fill=label)
            continue
        width = max(2.0, part.stroke_width * side / 2)
        draw.line(path, fill=label, width=round(width), joint="curve")
        for x, y in (path[0], path[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=label)
    return np.asarray(canvas, dtype=np.uint8)
