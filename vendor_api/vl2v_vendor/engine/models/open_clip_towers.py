"""An open_clip model's two towers as modules: from what the wire carries to unit vectors, in one call each.

CLIP's text attention is causal and the vector is read at the end-of-text token, so nothing after that token can change
it. open_clip's `encode_text` nevertheless computes all 77 positions; the text tower computes only those in use.

torch is imported with this module; import it only where a model is loaded.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from vl2v_vendor.images.preprocessing import Preprocessing


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


def takes_short_text(model: Any) -> bool:
    """Return whether `encode_short_text` is exact for `model`: open_clip's causal tower, read at the text's end."""
    from open_clip import CLIP

    is_causal = getattr(model, "attn_mask", None) is not None
    return type(model) is CLIP and is_causal and model.text_pool_type in ("argmax", "eos")


def encode_short_text(model: Any, token_ids: torch.Tensor) -> torch.Tensor:
    """`[N, L]` token ids to `[N, D]` features, not normalised; open_clip's `encode_text` with L for the context."""
    from open_clip.transformer import text_global_pool

    length = token_ids.shape[1]
    cast_dtype = model.transformer.get_cast_dtype()
    hidden = model.token_embedding(token_ids).to(cast_dtype)  # [N, L, W]
    hidden = hidden + model.positional_embedding[:length].to(cast_dtype)
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    hidden = model.ln_final(hidden)
    end_of_text = getattr(model, "text_eos_id", None)
    pooled = text_global_pool(hidden, token_ids, model.text_pool_type, eos_token_id=end_of_text)  # [N, W]
    projection = model.text_projection
    if projection is None:
        return cast("torch.Tensor", pooled)
    return cast("torch.Tensor", projection(pooled) if callable(projection) else pooled @ projection)
