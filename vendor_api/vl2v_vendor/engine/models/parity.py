"""What a precision costs: the cosines of its vectors to the fp32 vectors of the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import PixelBatch, Tokenizer, VectorBatch
from vl2v_vendor.engine.models.model_warm_up import LocalModel

PROBE_IMAGES = 16

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


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How close one precision comes to fp32.

    Attributes:
        model_id: Model that was measured.
        precision: Precision that is compared with fp32.
        image_cosines: Cosine of each image's vector to its fp32 vector.
        text_cosines: Cosine of each text's vector to its fp32 vector.
        same_nearest_text: The share of images that both precisions find nearest to the same text.
    """

    model_id: str
    precision: str
    image_cosines: tuple[float, ...]
    text_cosines: tuple[float, ...]
    same_nearest_text: float

    @property
    def lowest(self) -> float:
        """The least cosine of all."""
        return min(*self.image_cosines, *self.text_cosines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "lowest": self.lowest}


def measure_parity(
    exact: LocalModel, model: LocalModel, tokenizer: Tokenizer, pixels: PixelBatch | None = None
) -> ParityReport:
    """Encode the same inputs with both models.

    Args:
        exact: The fp32 model.
        model: The same weights in another precision.
        tokenizer: Tokenizer of both models.
        pixels: `[N, S, S, 3]` images of one's own; None takes the built-in ones.
    """
    if pixels is None:
        pixels = probe_images(PROBE_IMAGES, exact.info.image_size)
    exact_images, images = exact.encode_images(pixels), model.encode_images(pixels)
    exact_texts, texts = _encode_texts(exact, tokenizer), _encode_texts(model, tokenizer)
    nearest = (exact_images @ exact_texts.T).argmax(axis=1) == (images @ texts.T).argmax(axis=1)
    return ParityReport(
        model_id=model.info.id,
        precision=model.info.precision,
        image_cosines=_cosines(exact_images, images),
        text_cosines=_cosines(exact_texts, texts),
        same_nearest_text=float(nearest.mean()),
    )


def _encode_texts(model: LocalModel, tokenizer: Tokenizer, texts: Sequence[str] = PROBE_TEXTS) -> VectorBatch:
    """`[N, D]`, each text at its own length."""
    rows = [np.asarray(tokenizer.tokenize(text, truncate=True).model_input, dtype=np.int64) for text in texts]
    return np.concatenate([model.encode_tokens(row[None]) for row in rows])


def _cosines(exact: VectorBatch, found: VectorBatch) -> tuple[float, ...]:
    products = (exact.astype(np.float64) * found).sum(axis=1)
    norms = np.linalg.norm(exact.astype(np.float64), axis=1) * np.linalg.norm(found.astype(np.float64), axis=1)
    return tuple(round(float(cosine), 7) for cosine in products / norms)


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
