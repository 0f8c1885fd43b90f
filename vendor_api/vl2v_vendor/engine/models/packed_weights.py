"""A model's matrix products on a processor, by oneDNN on weights that are laid out once.

By itself torch multiplies fp32 matrices with MKL, on weights as they lie. How much faster oneDNN is depends on the
processor. That, and why operators of torch's compiler are used: docs/adr/0009.

torch is imported with this module; import it only where a model is loaded.
"""

from collections.abc import Callable
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from vl2v_vendor.domain.encoder import VectorBatch

_TOLERANCE: Final = 1e-5
"""Largest difference of each number of a unit vector."""


def pack_weights(model: nn.Module, probe: Callable[[], VectorBatch]) -> None:
    """Replace the linear layers and the self-attention of a frozen fp32 model on the CPU, in place.

    The model then serves inference alone, and has no state that could be saved. Other layers stay as they are. All do
    where the packed model fails or says something else: torch may have no oneDNN, its operators are made for its
    compiler and may change, and some towers use a layer's weights without calling it.

    Args:
        model: Model to be packed.
        probe: Function that returns vectors `[N, D]` of a fixed input by both of the model's towers.
    """
    expected = probe()
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for module in model.modules():
            for name, layer in module.named_children():
                if (packed := _packed(module, layer)) is not None:
                    replaced.append((module, name, layer))
                    setattr(module, name, packed)
        is_the_same = np.allclose(probe(), expected, rtol=0, atol=_TOLERANCE, equal_nan=True)
    except Exception:
        # Whatever it is, the model is as good without, only slower.
        is_the_same = False
    if not is_the_same:
        for module, name, layer in replaced:
            setattr(module, name, layer)


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: `[..., I]` to `[..., O]`.

    Args:
        weight: `[O, I]` float32.
        bias: `[O]`, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # No buffers: a packed tensor cannot be moved, cast or saved. open_clip asks for the weight's dtype.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self.bias = None if bias is None else bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the product, with the bias added in the same pass."""
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], ""))


class PackedSelfAttention(nn.Module):
    """`nn.MultiheadAttention` of open_clip's blocks for inference: query, key and value are one tensor `[N, L, W]`."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._heads = attention.num_heads
        self._in = PackedLinear(attention.in_proj_weight, attention.in_proj_bias)
        self._out = PackedLinear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return `[N, L, W]` and, as `nn.MultiheadAttention`, no weights; a float mask `[L, L]` is added to the scores.

        Raises:
            NotImplementedError: Another attention is asked for.
        """
        if need_weights or key is not query or value is not query:
            raise NotImplementedError("packed attention is of a tensor to itself, and keeps no weights")
        count, length, width = query.shape
        parts = self._in(query).view(count, length, 3, self._heads, width // self._heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # each [N, H, L, W / H]
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self._out(mixed.transpose(1, 2).reshape(count, length, width)), None


def _packed(block: nn.Module, layer: nn.Module) -> nn.Module | None:
    """Return what stands for a layer of a block; None if it stays.

    Attention is packed where it is the plain self-attention of an open_clip block; timm's towers have linear layers
    instead.
    """
    from open_clip.transformer import ResidualAttentionBlock

    if type(layer) is nn.Linear:
        return PackedLinear(layer.weight, layer.bias)
    is_self_attention = (
        isinstance(block, ResidualAttentionBlock)
        and not hasattr(block, "ln_1_kv")
        and type(layer) is nn.MultiheadAttention
        and layer.batch_first
        and layer.in_proj_weight is not None
        and layer.bias_k is None
        and not layer.add_zero_attn
    )
    return PackedSelfAttention(cast("nn.MultiheadAttention", layer)) if is_self_attention else None
