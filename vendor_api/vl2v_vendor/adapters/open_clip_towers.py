"""An open_clip model's two towers as modules: from what the wire carries to unit vectors, in one call each.

torch is imported with this module; import it only where a model is loaded.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from vl2v_vendor.adapters.open_clip_text import encode_short_text, takes_short_text
from vl2v_vendor.adapters.preprocessing import Preprocessing


class ImageTower(torch.nn.Module):
    """`[N, S, S, 3]` uint8 pixels to `[N, D]` float32 unit vectors."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Any, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise, encode, scale to unit length."""
        normalised = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std  # [N, 3, S, S]
        return _to_unit_vectors(self.model.encode_image(normalised))


class TextTower(torch.nn.Module):
    """`[N, L]` token ids to `[N, D]` float32 unit vectors, `L` up to the context length.

    Where the model allows it, a batch shorter than the context runs at its own length.
    """

    def __init__(self, model: Any, context_length: int) -> None:
        super().__init__()
        self.model = model
        self.context_length = context_length
        self.takes_short_text = takes_short_text(model)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Encode, scale to unit length."""
        if self.takes_short_text:
            return _to_unit_vectors(encode_short_text(self.model, token_ids))
        missing = self.context_length - token_ids.shape[1]
        return _to_unit_vectors(self.model.encode_text(torch.nn.functional.pad(token_ids, (0, missing))))


def _to_unit_vectors(features: torch.Tensor) -> torch.Tensor:
    """`[N, D]` of any precision to unit-norm float32; normalised after the cast. 0 / 0 is NaN, which is never sold."""
    features = features.float()
    return cast("torch.Tensor", features / features.norm(dim=-1, keepdim=True))
