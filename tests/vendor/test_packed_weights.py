"""Packed weights: the same vectors, faster; everything that cannot be packed stays as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tiny_clip import CONFIG, write_tiny_clip
from vl2v_vendor.adapters.open_clip_files import build_model
from vl2v_vendor.adapters.open_clip_model import OpenClipModel
from vl2v_vendor.adapters.packed_weights import PackedLinear, PackedSelfAttention, pack_weights

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
    assert PackedLinear in kinds(packed.towers[0])
    assert PackedLinear not in kinds(plain.towers[0])
    assert packed.info == plain.info
    side = packed.info.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    np.testing.assert_allclose(packed.encode_images(pixels), plain.encode_images(pixels), atol=1e-6)
    np.testing.assert_allclose(packed.encode_tokens(TOKENS), plain.encode_tokens(TOKENS), atol=1e-6)


def test_all_blocks_of_both_towers_are_packed(tmp_path: Path) -> None:
    model = build_model(write_tiny_clip(tmp_path)).eval().requires_grad_(False)
    pack_weights(model)
    assert not kinds(model) & {nn.Linear, nn.MultiheadAttention}


def test_attention_between_two_tensors_stays(tmp_path: Path) -> None:
    from open_clip.transformer import ResidualAttentionBlock

    block = ResidualAttentionBlock(8, 2, is_cross_attention=True).eval().requires_grad_(False)
    model, own, other = nn.Sequential(block), torch.rand(2, 3, 8), torch.rand(2, 5, 8)
    expected = copy.deepcopy(block)(own, other, other)
    pack_weights(model)
    assert type(block.attn) is nn.MultiheadAttention
    assert type(block.mlp.c_fc) is PackedLinear
    torch.testing.assert_close(block(own, other, other), expected, atol=1e-6, rtol=0)


def test_without_onednn_or_its_operators_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(write_tiny_clip(tmp_path)).eval().requires_grad_(False)
    before = kinds(model)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        pack_weights(model)
    assert kinds(model) == before
    monkeypatch.setattr(PackedLinear, "forward", lambda _self, _inputs: torch.ops.mkldnn.no_such_operator())
    pack_weights(model)
    assert kinds(model) == before
    monkeypatch.setattr(PackedLinear, "forward", lambda _self, inputs: inputs[:, :2])
    pack_weights(model)
    assert kinds(model) == before
