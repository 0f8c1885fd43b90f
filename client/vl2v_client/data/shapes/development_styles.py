"""Three further styles, for taking decisions on. Pictures are float64 `[S, S, 3]` in 0..255."""

import numpy as np

from vl2v_client.data.shapes.drawing_styles import Render
from vl2v_client.data.shapes.pixels import (
    Picture,
    Plane,
    blend,
    blur,
    find_edges,
    paint_flat,
    smooth_noise,
    spread_labels,
)
from vl2v_client.data.shapes.scene import Scene


def render_neon(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render glowing tubes along the outlines, against a dark wall."""
    side = scene.side
    wall = (0.16 * scene.colours[0] + 8.0) * (1.0 + 0.25 * smooth_noise(side, 10, rng)[..., None])
    vivid = scene.colours + 0.8 * (scene.colours - scene.colours.mean(axis=1, keepdims=True))
    glowing = np.clip(1.15 * vivid + 40.0, 0, 255)
    tubes: Plane = find_edges(scene.labels, 3).astype(np.float64) * np.where(
        spread_labels(scene.labels, 5) >= scene.first_object_label, 1.0, 0.4
    )
    colour = paint_flat(spread_labels(scene.labels, 9), glowing)
    halo = np.clip(blur(tubes, side / 25) * 1.6 + blur(tubes, side / 60), 0.0, 1.0)
    picture = blend(wall, colour, halo)
    return blend(picture, 0.4 * colour + 150.0, tubes * 0.9)


def render_mosaic(scene: Scene, rng: np.random.Generator) -> Picture:
    """Render small square tiles of uneven tone, set in grout."""
    side, tile = scene.side, max(2, scene.side // 24)
    shift = int(rng.integers(tile))
    rows, columns = np.mgrid[0:side, 0:side] + shift
    number = (rows // tile) * (side // tile + 2) + columns // tile
    flat = paint_flat(scene.labels, scene.colours)
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
    return blend(picture, paint_flat(front, tinted), lines)


DEVELOPMENT_RENDERS: dict[str, Render] = {
    "neon": render_neon,
    "mosaic": render_mosaic,
    "blueprint": render_blueprint,
}
