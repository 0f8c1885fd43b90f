"""How an image becomes the model's input, as parameters with a name.

The name (`preprocessing_id`) goes into every receipt and every cache key: two vectors with the same name were made
from pixels that were treated alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from vl2v_vendor.adapters.pixel_policies import SAFE
from vl2v_vendor.domain.encoder import ModelInfo

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an RGB image of any size to the model's normalised input.

    Attributes:
        size: Height and width of the input in pixels.
        mean: Mean that is subtracted from each channel in [0, 1].
        std: Standard deviation that divides each channel afterwards.
        interpolation: Name of PIL's antialiased filter.
        resize_mode: `shortest` scales the shorter side to `size` and crops the centre; `squash` scales both sides.
        policy: Id of the pixel policy: the treatment of everything that is not plain RGB.
    """

    size: int
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    policy: str = SAFE.id

    @property
    def id(self) -> str:
        """A short readable name, then a hash of every parameter."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        mean = ",".join(f"{value:.4g}" for value in self.mean)
        std = ",".join(f"{value:.4g}" for value in self.std)
        return f"{self.policy}/{self.resize_mode}-{self.interpolation}-{self.size}/mean{mean}/std{std}/{digest}"


def preprocessing_of(info: ModelInfo) -> Preprocessing:
    """Return the preprocessing that a loaded model reports."""
    return Preprocessing(
        size=info.image_size,
        mean=info.image_mean,
        std=info.image_std,
        interpolation="bilinear" if info.interpolation == "bilinear" else "bicubic",
        resize_mode="squash" if info.resize_mode == "squash" else "shortest",
        policy=info.preprocessing_id.partition("/")[0],
    )
