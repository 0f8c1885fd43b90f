"""Images and texts that are the same on every machine and for ever: what a model is tried on.

Only integers are used, so that no library's rounding or random generator can change a pixel. A change here makes every
golden file wrong.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import PixelBatch

PROBE_TEXTS: Final = (
    "a photo of a dog",
    "an ink drawing of a lighthouse at night",
    "a red bicycle leaning against a brick wall",
    "two children building a sand castle",
    "a bowl of ripe cherries",
    "the corner of an empty room with one window",
    "a blurry photo of a train",
    "a map of an island",
    "snow",
    "a cat asleep on a pile of newspapers",
    "a blueprint of a bridge",
    "an old man playing chess in the park",
    "a close-up of a green leaf with drops of water",
    "a cartoon of a smiling sun",
    "a crowded market street seen from above",
    "a handwritten letter",
)


def probe_images(count: int, size: int) -> PixelBatch:
    """`[count, size, size, 3]` RGB8: coloured gradients with a disc, stripes and grain, no two alike."""
    return np.stack([_probe_image(number, size) for number in range(count)])


def _probe_image(number: int, size: int) -> NDArray[np.uint8]:
    seed = np.frombuffer(hashlib.shake_256(f"vl2v-probe-{number}".encode()).digest(16), dtype=np.uint8).astype(np.int64)
    steps = np.arange(size, dtype=np.int64)
    ramp = steps * 255 // max(1, size - 1)
    image = (ramp[None, :, None] * seed[0:3] + ramp[:, None, None] * seed[3:6]) // 510
    centre_x, centre_y, radius = seed[6] * size // 256, seed[7] * size // 256, size * (2 + seed[8] % 4) // 12
    disc = (steps[None, :] - centre_x) ** 2 + (steps[:, None] - centre_y) ** 2 < radius**2
    image[disc] = seed[9:12]
    stripes = (steps * (3 + seed[12] % 8) // size) % 2 == 1
    image[:, stripes] = 255 - image[:, stripes] if seed[13] % 2 else image[:, stripes] // 2
    grain = np.frombuffer(hashlib.shake_256(seed.tobytes()).digest(size * size * 3), dtype=np.uint8)
    return (image * 7 // 8 + grain.reshape(size, size, 3) // 8).astype(np.uint8)
