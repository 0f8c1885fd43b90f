"""Outlines that objects are composed of, in object units: x to the right, y down, both about [-1, 1]."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Corner points, `[N, 2]`, in object units."""

Role = Literal["main", "accent", "dark", "light"]
"""Which colour of the scene a part takes: the object's own colour, a second one, near-black or near-white."""


@dataclass(frozen=True)
class Part:
    """One filled polygon, or one stroke of a given width, of an object.

    Attributes:
        points: Corners of the polygon or of the stroke's path, `[N, 2]`, object units.
        role: The colour that the part takes.
        stroke_width: 0 for a filled polygon, else the width of the line in object units.
    """

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
    """Return points along an ellipse, clockwise on the screen.

    Args:
        x: Centre, object units.
        y: Centre, object units.
        radius_x: Horizontal radius, object units.
        radius_y: Vertical radius, object units.
        start: First angle in degrees; 0 points right, 90 points down.
        stop: Last angle in degrees.
    """
    angles = np.radians(np.linspace(start, stop, 33))
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def star(x: float, y: float, outer: float, inner: float, tips: int) -> Points:
    """Return a star with its first tip upwards, `[2 * tips, 2]`."""
    angles = np.pi * np.arange(2 * tips) / tips - np.pi / 2
    radii = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


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
