"""The styles: each turns a scene into a picture, float64 `[S, S, 3]` in 0..255, by raster operations they share."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vl2v_client.data.shapes.scene import Scene

Picture = NDArray[np.floating[Any]]
Plane = NDArray[np.floating[Any]]


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

    The map is `[S, S]`, the amplitude a typical displacement in pixels, `cells` the independent ones along a side.
    """
    side = labels.shape[0]
    rows, columns = np.mgrid[0:side, 0:side]
    rows = np.clip(np.rint(rows + amplitude * smooth_noise(side, cells, rng)), 0, side - 1).astype(int)
    columns = np.clip(np.rint(columns + amplitude * smooth_noise(side, cells, rng)), 0, side - 1).astype(int)
    displaced: NDArray[np.uint8] = labels[rows, columns]
    return displaced


def find_edges(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Mark the borders between parts of a map `[S, S]`, bool `[S, S]`, by lines of an odd width in pixels."""
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


Render = Callable[[Scene, np.random.Generator], Picture]  # draws one scene in one style


def render_photo(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render a lit object: backdrop out of focus, cast shadow, rounded shading, lens blur and sensor noise."""
    side = scene.side
    light = rng.uniform(-np.pi, 0.0)
    direction = np.array([np.cos(light), np.sin(light)])
    ramp = np.linspace(rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.1), side)[:, None]
    texture = 10 * smooth_noise(side, 5, rng) + 7 * smooth_noise(side, 20, rng)
    backdrop = scene.colours[0] * ramp[..., None] + texture[..., None]
    scattered = np.where(scene.object_mask, 0, scene.labels)
    behind = blend(backdrop, scene.colours[scattered], blur((scattered > 0) * 1.0, side / 50))
    mask = scene.object_mask * 1.0
    offset = -np.rint(direction * side * 0.05).astype(int)
    shadow = blur(np.roll(mask, (offset[1], offset[0]), axis=(0, 1)), side / 30)
    behind *= 1.0 - 0.5 * shadow[..., None]
    height = 0.6 * blur(mask, side / 14) + 0.4 * blur(mask, side / 40)
    slope_y, slope_x = np.gradient(height, 1 / side)
    shade = 1.0 + 0.09 * -(slope_x * direction[0] + slope_y * direction[1])
    shade *= 1.0 + 0.05 * smooth_noise(side, 30, rng)
    lit = scene.colours[scene.labels] * np.clip(shade, 0.4, 1.6)[..., None]
    picture = blend(behind, lit, blur(mask, side / 128))
    picture = (picture - 128) * rng.uniform(0.8, 1.1) + 128 * rng.uniform(0.85, 1.12)
    return picture + rng.normal(0.0, rng.uniform(4.0, 14.0), picture.shape)


def render_cartoon(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render flat colours with black outlines, on a plain, striped or dotted ground."""
    side, outline = scene.side, int(rng.choice([3, 5]))
    vivid = scene.colours + 0.35 * (scene.colours - scene.colours.mean(axis=1, keepdims=True))
    picture: Picture = vivid[scene.labels]
    rows, columns = np.mgrid[0:side, 0:side]
    pattern, pitch = rng.integers(3), side / rng.integers(6, 11)
    if pattern == 1:
        marked = ((rows + columns * rng.choice([-1.0, 0.0, 1.0])) % pitch) < pitch / 2
    elif pattern == 2:
        marked = (rows % pitch - pitch / 2) ** 2 + (columns % pitch - pitch / 2) ** 2 < (pitch / 4) ** 2
    else:
        marked = rows > side * rng.uniform(0.6, 0.8)
    picture[marked & (scene.labels == 0)] *= 0.88
    offset = int(side * 0.06)
    away = ~np.roll(scene.object_mask, (-offset, -offset), axis=(0, 1)) & scene.object_mask
    picture[away] *= 0.78
    picture[find_edges(scene.labels, outline)] = (24, 20, 28)
    return picture


def render_sketch(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render coloured pencil on tinted paper: lines gone over twice by an unsteady hand, some hatching, no fill."""
    side = scene.side
    paper = 0.25 * scene.colours[0] + 0.75 * np.array([250.0, 247.0, 240.0])
    picture: Picture = np.broadcast_to(paper, (side, side, 3)) + 4.0 * rng.normal(0.0, 1.0, (side, side, 1))
    grain = np.clip(0.8 + 0.25 * rng.normal(0.0, 1.0, (side, side)), 0.0, 1.0)
    pencil = 0.5 * scene.colours * np.minimum(1.0, 150.0 / (scene.colours.mean(axis=1, keepdims=True) + 1.0))
    rows, columns = np.mgrid[0:side, 0:side]
    hatch = ((rows + columns) % rng.integers(8, 13) < 2) & scene.object_mask
    picture = blend(picture, pencil[scene.labels], hatch * grain * rng.uniform(0.1, 0.4))
    for _ in range(2):
        drawn = warp(scene.labels, side / 110, 7, rng)
        ink = pencil[spread_labels(drawn, 3)]
        clutter = spread_labels(drawn, 3) < scene.first_object_label
        strength = grain * np.where(clutter, 0.5, 0.85)
        picture = blend(picture, ink, find_edges(drawn, 3) * strength)
    return picture


def render_painting(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render broad brush strokes over a wash, then finer ones along the forms, on woven canvas."""
    side = scene.side
    wash = 12 * smooth_noise(side, 6, rng)[..., None] + rng.normal(0.0, 8.0, 3) * smooth_noise(side, 4, rng)[..., None]
    model = np.clip(scene.colours[scene.labels] * 0.92 + wash, 0, 255)
    canvas = Image.fromarray(model.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    flow = np.pi * smooth_noise(side, 3, rng)
    for count, length, width in ((220, side / 9, side // 18), (1100, side / 20, side // 40)):
        columns, rows = rng.integers(0, side, (2, count))
        angles = flow[rows, columns] + rng.normal(0.0, 0.3, count)
        reach = length / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        places = np.stack([columns, rows], axis=1)
        paths = np.concatenate([places - reach, places + reach], axis=1).tolist()
        tones = model[rows, columns] + rng.normal(0.0, 10.0, (count, 1)) + rng.normal(0.0, 6.0, (count, 3))
        for path, tone in zip(paths, np.clip(tones, 0, 255).astype(int).tolist(), strict=True):
            draw.line(path, fill=tuple(tone), width=width)
    down, across = np.mgrid[0:side, 0:side]
    weave = np.sin(down * np.pi / 2) * np.sin(across * np.pi / 2)
    picture = np.asarray(canvas, dtype=np.float64)
    painted: Picture = np.rint(picture / 24) * 24 + 7 * weave[..., None]
    return painted


def render_neon(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render glowing tubes along the outlines, against a dark wall."""
    side = scene.side
    wall = (0.16 * scene.colours[0] + 8.0) * (1.0 + 0.25 * smooth_noise(side, 10, rng)[..., None])
    vivid = scene.colours + 0.8 * (scene.colours - scene.colours.mean(axis=1, keepdims=True))
    glowing = np.clip(1.15 * vivid + 40.0, 0, 255)
    tubes: Plane = find_edges(scene.labels, 3).astype(np.float64) * np.where(
        spread_labels(scene.labels, 5) >= scene.first_object_label, 1.0, 0.4
    )
    colour = glowing[spread_labels(scene.labels, 9)]
    halo = np.clip(blur(tubes, side / 25) * 1.6 + blur(tubes, side / 60), 0.0, 1.0)
    picture = blend(wall, colour, halo)
    return blend(picture, 0.4 * colour + 150.0, tubes * 0.9)


def render_mosaic(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render small square tiles of uneven tone, set in grout."""
    side, tile = scene.side, max(2, scene.side // 24)
    shift = int(rng.integers(tile))
    rows, columns = np.mgrid[0:side, 0:side] + shift
    number = (rows // tile) * (side // tile + 2) + columns // tile
    flat = scene.colours[scene.labels]
    counts = np.maximum(np.bincount(number.ravel()), 1)
    means = np.stack([np.bincount(number.ravel(), flat[..., band].ravel()) / counts for band in range(3)], axis=1)
    means += rng.normal(0.0, 9.0, (len(counts), 1)) + rng.normal(0.0, 3.0, (len(counts), 3))
    picture: Picture = means[number]
    grout = (rows % tile == 0) | (columns % tile == 0)
    picture[grout] = 0.35 * picture[grout] + 0.65 * rng.uniform(60, 200)
    return picture


def render_blueprint(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render pale technical lines on a coloured sheet with a grid."""
    side, pitch = scene.side, int(scene.side // rng.integers(8, 13))
    sheet = 0.45 * scene.colours[0] + 0.55 * np.array([24.0, 60.0, 140.0])
    picture = np.broadcast_to(sheet, (side, side, 3)) * (0.8 + 0.04 * smooth_noise(side, 8, rng)[..., None])
    rows, columns = np.mgrid[0:side, 0:side]
    grid = ((rows % pitch < 1) | (columns % pitch < 1)) * 0.25
    picture = blend(picture, np.full_like(picture, 235.0), grid)
    front = spread_labels(scene.labels, 3)
    lines: Plane = find_edges(scene.labels, 3).astype(np.float64) * np.where(
        front >= scene.first_object_label, 0.95, 0.4
    )
    tinted = 0.3 * scene.colours + 0.7 * 245.0
    return blend(picture, tinted[front], lines)


_BENCHMARK: Mapping[str, Render] = {
    "photo": render_photo,
    "cartoon": render_cartoon,
    "sketch": render_sketch,
    "painting": render_painting,
}
_DEVELOPMENT: Mapping[str, Render] = {"neon": render_neon, "mosaic": render_mosaic, "blueprint": render_blueprint}

STYLES = tuple(_BENCHMARK)  # the benchmark's styles (domains)

DEVELOPMENT_STYLES = tuple(_DEVELOPMENT)
"""Styles for taking decisions on, so that the benchmark's styles stay unseen until they are reported."""

RENDERS = {**_BENCHMARK, **_DEVELOPMENT}  # by style
