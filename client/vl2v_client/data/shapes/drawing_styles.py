"""The benchmark's four styles. Each turns a scene into a picture, float64 `[S, S, 3]` in 0..255."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from vl2v_client.data.shapes.pixels import (
    Picture,
    blend,
    blur,
    find_edges,
    paint_flat,
    smooth_noise,
    spread_labels,
    warp,
)
from vl2v_client.data.shapes.scene import Scene

Render = Callable[[Scene, np.random.Generator], Picture]
"""Draws one scene in one style."""


def render_photo(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render a lit object: backdrop out of focus, cast shadow, rounded shading, lens blur and sensor noise."""
    side = scene.side
    light = rng.uniform(-np.pi, 0.0)
    direction = np.array([np.cos(light), np.sin(light)])
    ramp = np.linspace(rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.1), side)[:, None]
    texture = 10 * smooth_noise(side, 5, rng) + 7 * smooth_noise(side, 20, rng)
    backdrop = scene.colours[0] * ramp[..., None] + texture[..., None]
    scattered = np.where(scene.object_mask, 0, scene.labels)
    behind = blend(backdrop, paint_flat(scattered, scene.colours), blur((scattered > 0) * 1.0, side / 50))
    mask = scene.object_mask * 1.0
    offset = -np.rint(direction * side * 0.05).astype(int)
    shadow = blur(np.roll(mask, (offset[1], offset[0]), axis=(0, 1)), side / 30)
    behind *= 1.0 - 0.5 * shadow[..., None]
    height = 0.6 * blur(mask, side / 14) + 0.4 * blur(mask, side / 40)
    slope_y, slope_x = np.gradient(height, 1 / side)
    shade = 1.0 + 0.09 * -(slope_x * direction[0] + slope_y * direction[1])
    shade *= 1.0 + 0.05 * smooth_noise(side, 30, rng)
    lit = paint_flat(scene.labels, scene.colours) * np.clip(shade, 0.4, 1.6)[..., None]
    picture = blend(behind, lit, blur(mask, side / 128))
    picture = (picture - 128) * rng.uniform(0.8, 1.1) + 128 * rng.uniform(0.85, 1.12)
    return picture + rng.normal(0.0, rng.uniform(4.0, 14.0), picture.shape)


def render_cartoon(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render flat colours with black outlines, on a plain, striped or dotted ground."""
    side, outline = scene.side, int(rng.choice([3, 5]))
    vivid = scene.colours + 0.35 * (scene.colours - scene.colours.mean(axis=1, keepdims=True))
    picture = paint_flat(scene.labels, vivid)
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
    picture = blend(picture, paint_flat(scene.labels, pencil), hatch * grain * rng.uniform(0.1, 0.4))
    for _ in range(2):
        drawn = warp(scene.labels, side / 110, 7, rng)
        ink = paint_flat(spread_labels(drawn, 3), pencil)
        clutter = spread_labels(drawn, 3) < scene.first_object_label
        strength = grain * np.where(clutter, 0.5, 0.85)
        picture = blend(picture, ink, find_edges(drawn, 3) * strength)
    return picture


def render_painting(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render broad brush strokes over a wash, then finer ones along the forms, on woven canvas."""
    side = scene.side
    wash = 12 * smooth_noise(side, 6, rng)[..., None] + rng.normal(0.0, 8.0, 3) * smooth_noise(side, 4, rng)[..., None]
    model = np.clip(paint_flat(scene.labels, scene.colours) * 0.92 + wash, 0, 255)
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


BENCHMARK_STYLES: dict[str, Render] = {
    "photo": render_photo,
    "cartoon": render_cartoon,
    "sketch": render_sketch,
    "painting": render_painting,
}
