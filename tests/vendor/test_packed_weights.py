"""Packed weights: the same vectors, faster; everything that cannot be packed stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_vendor.engine.models.open_clip_files import build_model
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.packed_weights import PackedLinear, PackedSelfAttention, pack_weights

TOKENS = np.array([[49406, 320, 1125, 49407], [49406, 539, 320, 49407]])
TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}


def kinds(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5)])
def test_a_packed_layer_is_the_layer(shape: tuple[int, ...], bias: bool) -> None:
    layer, inputs = nn.Linear(5, 7, bias=bias).requires_grad_(False), torch.rand(shape)
    torch.testing.assert_close(PackedLinear(layer.weight, layer.bias)(inputs), layer(inputs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("masked", [True, False])
def test_packed_attention_is_the_attention(masked: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    inputs, mask = torch.rand(3, 5, 8), torch.full((5, 5), -torch.inf).triu(1) if masked else None
    packed, nothing = PackedSelfAttention(attention)(inputs, inputs, inputs, need_weights=False, attn_mask=mask)
    expected, _ = attention(inputs, inputs, inputs, need_weights=False, attn_mask=mask)
    torch.testing.assert_close(packed, expected, atol=1e-6, rtol=0)
    assert nothing is None


def test_packed_attention_refuses_what_it_does_not_do() -> None:
    packed = PackedSelfAttention(nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False))
    inputs = torch.rand(3, 5, 8)
    with pytest.raises(NotImplementedError, match="to itself"):
        packed(inputs, torch.rand(3, 5, 8), inputs)
    with pytest.raises(NotImplementedError, match="keeps no weights"):
        packed(inputs, inputs, inputs, need_weights=True)


@pytest.mark.parametrize("vision", [{}, TIMM])
def test_a_packed_model_gives_the_vectors_of_its_weights(tmp_path: Path, vision: dict[str, Any]) -> None:
    spec = write_tiny_clip(tmp_path, config={**CONFIG, "vision_cfg": vision or CONFIG["vision_cfg"]})
    packed, plain = OpenClipModel(spec), OpenClipModel(spec, packed=False)
    assert PackedLinear in kinds(packed.images)
    assert PackedLinear not in kinds(plain.images)
    assert packed.info == plain.info
    side = packed.info.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    np.testing.assert_allclose(packed.encode_images(pixels), plain.encode_images(pixels), atol=1e-6)
    np.testing.assert_allclose(packed.encode_tokens(TOKENS), plain.encode_tokens(TOKENS), atol=1e-6)


def test_all_blocks_of_both_towers_are_packed(tmp_path: Path) -> None:
    model = build_model(write_tiny_clip(tmp_path)).eval().requires_grad_(False)
    pack_weights(model, lambda: np.ones((1, 2), dtype=np.float32))
    assert not kinds(model) & {nn.Linear, nn.MultiheadAttention}


def test_attention_between_two_tensors_stays() -> None:
    from open_clip.transformer import ResidualAttentionBlock

    block = ResidualAttentionBlock(8, 2, is_cross_attention=True).eval().requires_grad_(False)
    model, own, other = nn.Sequential(block), torch.rand(2, 3, 8), torch.rand(2, 5, 8)
    expected = block(own, other, other)
    pack_weights(model, lambda: block(own, other, other).numpy())
    assert type(block.attn) is nn.MultiheadAttention
    assert type(block.mlp.c_fc) is PackedLinear
    torch.testing.assert_close(block(own, other, other), expected, atol=1e-6, rtol=0)


class UsesWeights(nn.Module):
    """As some of timm's blocks: a layer whose weights are used, and which is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.linear(inputs, self.first.weight))


@pytest.mark.parametrize("fault", ["weights are used", "no such operator", "another result", "not a number"])
def test_a_model_that_cannot_be_packed_stays_as_it_was(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = UsesWeights() if fault == "weights are used" else nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.requires_grad_(False)
    replies: dict[str, Any] = {
        "no such operator": lambda _layer, _inputs: torch.ops.mkldnn.no_such_operator(),
        "another result": lambda layer, inputs: inputs[..., :1].expand(*inputs.shape[:-1], len(layer.bias)),
        "not a number": lambda layer, inputs: torch.full((len(inputs), len(layer.bias)), torch.nan),
    }
    if fault in replies:
        monkeypatch.setattr(PackedLinear, "forward", replies[fault])
    inputs = torch.rand(3, 4)
    expected = model(inputs)
    pack_weights(model, lambda: model(inputs).numpy())
    assert PackedLinear not in kinds(model)
    torch.testing.assert_close(model(inputs), expected, atol=0, rtol=0)
