"""What becomes of an image that is not plain RGB, as data: each policy is a name and its rules.

The name is part of the preprocessing id, and so of every receipt and cache key. A change of any rule needs a new name.

`safe` (the default) shows the model what a person would see:

- EXIF orientation (JPEG, PNG, WebP) is applied; an unreadable EXIF block counts as upright.
- RGB comes first, scaling second. Palette becomes RGB or RGBA. 16-bit grey is scaled to 8 bits, rounded; 16-bit RGB
  keeps its high bytes. Transparency is composited on white. CMYK becomes RGB by Pillow's formula; colour profiles are
  ignored.

`safe` with JPEG drafts is the same, but libjpeg decodes a JPEG at 1/2, 1/4 or 1/8 of its size where that is still at
least twice the model's input: faster for large photographs, and not exact. A shorter side below four times the input
gives the exact pixels.

`reference` gives the pixels of open_clip's own transform bit for bit: scaling comes first, Pillow's `convert("RGB")`
second. EXIF orientation is ignored, transparency is dropped (whatever colour lay beneath it shows), a palette is
scaled to the nearest entry, and 16-bit grey saturates to white.

Under every policy the first frame of an animation counts, and an RGB image at the input size is left untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from vl2v_vendor.domain.errors import ModelLoadFailed

PolicyName = Literal["safe", "reference"]


@dataclass(frozen=True, slots=True)
class PixelPolicy:
    """One way to treat pixels.

    Attributes:
        id: Name with a version, the first part of the preprocessing id.
        applies_orientation: Whether to turn the image upright by its EXIF block.
        converts_before_scaling: Whether to flatten to RGB, then scale; else scale first and let Pillow convert.
        drafts_jpeg: Whether libjpeg may decode large photographs at a fraction of their size.
    """

    id: str
    applies_orientation: bool
    converts_before_scaling: bool
    drafts_jpeg: bool = False


SAFE: Final = PixelPolicy("safe-1", applies_orientation=True, converts_before_scaling=True)
SAFE_DRAFT: Final = PixelPolicy(
    "safe-1-draft", applies_orientation=True, converts_before_scaling=True, drafts_jpeg=True
)
REFERENCE: Final = PixelPolicy("reference-1", applies_orientation=False, converts_before_scaling=False)

POLICIES: Final = {policy.id: policy for policy in (SAFE, SAFE_DRAFT, REFERENCE)}


def choose_policy(name: PolicyName, *, jpeg_draft: bool) -> PixelPolicy:
    """Choose the policy that the settings name.

    Raises:
        ModelLoadFailed: Drafts are asked for under `reference`, which would not be the reference any more.
    """
    if name == "safe":
        return SAFE_DRAFT if jpeg_draft else SAFE
    if jpeg_draft:
        raise ModelLoadFailed("jpeg_draft changes pixels, so it cannot go with pixel_policy `reference`; use `safe`")
    return REFERENCE
