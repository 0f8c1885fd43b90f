"""The ten classes: each function composes one object of outlines, with random proportions, back to front.

Object units: x to the right, y down, both about [-1, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # corner points, `[N, 2]`, in object units

Role = Literal["main", "accent", "dark", "light"]
"""Which colour of the scene a part takes: the object's own colour, a second one, near-black or near-white."""


@dataclass(frozen=True)
class Part:
    """One filled polygon, or one stroke if it has a width in object units; its points are corners of either."""

    points: Points
    role: Role
    stroke_width: float = 0.0


def polygon(*corners: tuple[float, float]) -> Points:
    """Return the corners as an array `[N, 2]`."""
    return np.array(corners, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return an upright rectangle `[4, 2]`."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, radius_x: float, radius_y: float, start: float = 0.0, stop: float = 360.0) -> Points:
    """Return points along an ellipse about `(x, y)`, clockwise on the screen.

    They go from the angle `start` to `stop`, in degrees; 0 points right, 90 points down.
    """
    angles = np.radians(np.linspace(start, stop, 33))
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def rounded(points: Points, passes: int = 2) -> Points:
    """Round the corners of a closed polygon (Chaikin, 1974): each pass replaces a corner by two points."""
    for _ in range(passes):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
        points = points.reshape(-1, 2)
    return points


def rotate(points: Points, degrees: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Rotate points clockwise on the screen about (x, y)."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rotated: Points = (points - (x, y)) @ matrix + (x, y)
    return rotated


Draw = Callable[[np.random.Generator], list[Part]]
"""Composes one object of a class, in object units, from a random generator."""


def draw_house(rng: np.random.Generator) -> list[Part]:
    """Draw a body with a gabled roof, a chimney, a door and one or two windows."""
    width, eaves, ridge = rng.uniform(0.6, 0.8), rng.uniform(-0.25, 0.0), rng.uniform(-1.0, -0.8)
    side = rng.choice([-1.0, 1.0])
    door = side * rng.uniform(0.15, 0.3)
    parts = [
        Part(box(-side * 0.45 - 0.1, ridge + 0.05, -side * 0.45 + 0.1, eaves), "dark"),
        Part(box(-width, eaves, width, 0.9), "main"),
        Part(polygon((-width - 0.2, eaves), (0.0, ridge), (width + 0.2, eaves)), "accent"),
        Part(box(door - 0.16, 0.3, door + 0.16, 0.9), "dark"),
        Part(box(-door - 0.2, 0.25, -door + 0.15, 0.58), "light"),
    ]
    if rng.random() < 0.5:
        parts.append(Part(ellipse(0.0, (eaves + ridge) / 2 + 0.12, 0.12, 0.12), "light"))
    return parts


def draw_tree(rng: np.random.Generator) -> list[Part]:
    """Draw a trunk under a crown: either leafy (overlapping discs) or a conifer (stacked triangles)."""
    trunk = rng.uniform(0.1, 0.17)
    parts = [Part(box(-trunk, 0.1, trunk, 1.0), "dark")]
    if rng.random() < 0.5:
        for x, y in ((-0.4, -0.05), (0.4, -0.05), (-0.22, -0.5), (0.22, -0.5), (0.0, -0.2)):
            parts.append(Part(ellipse(x, y, rng.uniform(0.36, 0.46), rng.uniform(0.34, 0.42)), "main"))
        return parts
    for top, half in ((-0.15, 0.75), (-0.6, 0.6), (-1.0, 0.42)):
        width = half * rng.uniform(0.9, 1.1)
        parts.append(Part(polygon((-width, top + 0.72), (0.0, top), (width, top + 0.72)), "main"))
    return parts


def draw_fish(rng: np.random.Generator) -> list[Part]:
    """Draw an oval body with a forked tail, a fin on the back and a round eye."""
    height, tail = rng.uniform(0.36, 0.5), rng.uniform(0.4, 0.55)
    return [
        Part(polygon((0.4, 0.0), (1.0, -tail), (0.82, 0.0), (1.0, tail)), "accent"),
        Part(polygon((-0.3, -height + 0.1), (0.1, -height - 0.3), (0.4, -height + 0.18)), "accent"),
        Part(ellipse(-0.2, 0.0, 0.78, height), "main"),
        Part(polygon((-0.1, 0.05), (0.25, 0.0), (0.2, 0.32)), "accent"),
        Part(ellipse(-0.62, -0.1, 0.13, 0.13), "light"),
        Part(ellipse(-0.65, -0.1, 0.06, 0.06), "dark"),
    ]


def draw_car(rng: np.random.Generator) -> list[Part]:
    """Draw a side view: low body, cabin with two windows, two wheels."""
    roof, back, front = rng.uniform(-0.55, -0.4), rng.uniform(0.5, 0.68), rng.uniform(-0.5, -0.3)
    cabin = polygon((front - 0.2, 0.05), (front + 0.1, roof), (back - 0.2, roof), (back, 0.05))
    middle = (front + back) / 2
    parts = [
        Part(cabin, "main"),
        Part(rounded(box(-1.05, -0.05, 1.05, 0.42)), "main"),
        Part(
            polygon((front, 0.0), (front + 0.16, roof + 0.1), (middle - 0.06, roof + 0.1), (middle - 0.06, 0.0)),
            "light",
        ),
        Part(
            polygon((middle + 0.06, 0.0), (middle + 0.06, roof + 0.1), (back - 0.26, roof + 0.1), (back - 0.14, 0.0)),
            "light",
        ),
    ]
    radius = rng.uniform(0.22, 0.27)
    for x in (-0.55, 0.55):
        parts += [Part(ellipse(x, 0.42, radius, radius), "dark"), Part(ellipse(x, 0.42, 0.1, 0.1), "light")]
    return parts


def draw_cup(rng: np.random.Generator) -> list[Part]:
    """Draw a mug with a handle and a dark opening."""
    top, bottom, height = rng.uniform(0.55, 0.66), rng.uniform(0.4, 0.56), rng.uniform(0.6, 0.72)
    parts = [
        Part(ellipse(0.58, 0.08, 0.38, 0.36, -100, 100), "main", 0.16),
        Part(polygon((-top, -height), (top, -height), (bottom, height), (-bottom, height)), "main"),
        Part(ellipse(0.0, height, bottom, 0.12), "main"),
        Part(ellipse(0.0, -height, top, 0.17), "light"),
        Part(ellipse(0.0, -height + 0.02, top - 0.1, 0.11), "dark"),
    ]
    if rng.random() < 0.5:
        middle = (top + bottom) / 2
        parts.append(Part(box(-middle + 0.02, -0.1, middle - 0.02, 0.18), "accent"))
    return parts


def draw_umbrella(rng: np.random.Generator) -> list[Part]:
    """Draw an open canopy with a scalloped edge, over a stick with a hook."""
    height, hook = rng.uniform(0.75, 0.95), rng.choice([-1.0, 1.0])
    stick = np.concatenate([polygon((0.0, -0.9), (0.0, 0.75)), ellipse(0.16, 0.78, 0.16, 0.2, 180, 0)])
    scallops = [ellipse(x, 0.0, 0.25, 0.16, 0, -180) for x in (0.75, 0.25, -0.25, -0.75)]
    dome = np.concatenate([ellipse(0.0, 0.0, 1.0, height, 180, 360), *scallops])
    rib = np.concatenate([ellipse(0.0, 0.0, 0.25, height, 180, 360), ellipse(0.0, 0.0, 0.25, 0.16, 0, -180)])
    return [
        Part(stick * (hook, 1.0), "dark", 0.1),
        Part(dome, "main"),
        Part(rib, "accent"),
        Part(ellipse(0.0, -height, 0.06, 0.08), "dark"),
    ]


def draw_flower(rng: np.random.Generator) -> list[Part]:
    """Round petals about a disc, on a stem with one or two leaves."""
    petals, centre = int(rng.integers(5, 9)), (0.0, -0.35)
    length, width = rng.uniform(0.26, 0.32), rng.uniform(0.16, 0.22)
    side = rng.choice([-1.0, 1.0])
    leaf = rotate(ellipse(side * 0.3, 0.5, 0.3, 0.11), -side * 30, side * 0.3, 0.5)
    parts = [Part(polygon((0.0, -0.3), (0.05 * side, 0.4), (0.0, 1.0)), "dark", 0.09), Part(leaf, "dark")]
    for angle in np.arange(petals) * 360 / petals:
        petal = ellipse(centre[0], centre[1] - 0.36, width, length)
        parts.append(Part(rotate(petal, angle, *centre), "main"))
    parts.append(Part(ellipse(*centre, 0.2, 0.2), "accent"))
    return parts


def draw_boat(rng: np.random.Generator) -> list[Part]:
    """Draw a hull under a mast with one or two triangular sails."""
    top, side = rng.uniform(-1.0, -0.85), rng.choice([-1.0, 1.0])
    hull = polygon((-0.95, 0.4), (0.95, 0.4), (0.62, 0.85), (-0.62, 0.85))
    parts = [
        Part(polygon((0.0, top), (0.0, 0.45)), "dark", 0.08),
        Part(polygon((side * 0.08, top + 0.05), (side * 0.82, 0.25), (side * 0.08, 0.25)), "light"),
        Part(hull, "main"),
    ]
    if rng.random() < 0.7:
        parts.append(Part(polygon((-side * 0.08, top + 0.3), (-side * 0.6, 0.25), (-side * 0.08, 0.25)), "accent"))
    return parts


def draw_key(rng: np.random.Generator) -> list[Part]:
    """Draw a ring (the bow), a long shaft and two or three teeth."""
    radius, teeth = rng.uniform(0.26, 0.34), int(rng.integers(2, 4))
    parts = [
        Part(ellipse(-0.62, 0.0, radius, radius), "main", 0.17),
        Part(polygon((-0.62 + radius, 0.0), (1.0, 0.0)), "main", 0.16),
    ]
    for tooth in range(teeth):
        x = 0.9 - 0.24 * tooth
        parts.append(Part(box(x - 0.08, 0.0, x + 0.06, rng.uniform(0.26, 0.4)), "main"))
    return parts


def draw_mushroom(rng: np.random.Generator) -> list[Part]:
    """Draw a pale stem under a domed cap with spots."""
    stem, height = rng.uniform(0.2, 0.3), rng.uniform(0.7, 0.95)
    parts = [
        Part(rounded(polygon((-stem, -0.1), (stem, -0.1), (stem + 0.12, 0.95), (-stem - 0.12, 0.95)), 1), "light"),
        Part(ellipse(0.0, 0.05, 0.9, height, 180, 360), "main"),
        Part(ellipse(0.0, 0.05, 0.9, 0.16, 0, 180), "accent"),
    ]
    for x, y in ((-0.5, -0.2), (0.0, -0.35), (0.5, -0.2), (0.02, -0.68 * height)):
        if rng.random() < 0.85:
            parts.append(Part(ellipse(x, y, rng.uniform(0.09, 0.15), rng.uniform(0.08, 0.13)), "light"))
    return parts


OBJECTS: Mapping[str, Draw] = {
    "house": draw_house,
    "tree": draw_tree,
    "fish": draw_fish,
    "car": draw_car,
    "cup": draw_cup,
    "umbrella": draw_umbrella,
    "flower": draw_flower,
    "boat": draw_boat,
    "key": draw_key,
    "mushroom": draw_mushroom,
}
"""By class name."""

CLASS_NAMES = tuple(OBJECTS)
