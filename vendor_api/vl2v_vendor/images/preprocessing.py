"""Preprocessing of a model's images: its sizes and normalisation, and the policy that decides which pixels are read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import ModelLoadFailed

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

SAFE: Final = "safe-1"
"""Id of a pixel policy: turn the image upright by its EXIF block, flatten it to RGB, then scale."""
SAFE_DRAFT: Final = "safe-1-draft"
"""The same, and libjpeg may decode large photographs at a fraction of their size."""
REFERENCE: Final = "reference-1"
"""Scale first, and let Pillow convert."""


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
    policy: str = SAFE

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


def choose_policy(name: Literal["safe", "reference"], *, jpeg_draft: bool) -> str:
    """Choose the policy that the settings name.

    Raises:
        ModelLoadFailed: Drafts are asked for under `reference`, which would not be the reference any more.
    """
    if name == "safe":
        return SAFE_DRAFT if jpeg_draft else SAFE
    if jpeg_draft:
        raise ModelLoadFailed("jpeg_draft changes pixels, so it cannot go with pixel_policy `reference`; use `safe`")
    return REFERENCE
