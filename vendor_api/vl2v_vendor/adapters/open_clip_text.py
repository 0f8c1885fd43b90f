"""open_clip's text tower at the batch's own length.

CLIP's text attention is causal and the vector is read at the end-of-text token, so nothing after that token can
change it. open_clip's `encode_text` nevertheless computes all 77 positions; this module computes only those in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


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
