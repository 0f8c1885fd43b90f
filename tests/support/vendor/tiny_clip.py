"""A random open_clip model of a few kilobytes, and models that misbehave in a process of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.open_clip_files import ModelSpec

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def write_tiny_clip(
    folder: Path, *, config: dict[str, Any] = CONFIG, weights_config: dict[str, Any] | None = None, seed: int = 0
) -> ModelSpec:
    """Write configuration and checkpoint; `weights_config` makes a checkpoint of another architecture."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    config_file, checkpoint_file = folder / "tiny-clip.json", folder / "tiny-clip.safetensors"
    config_file.write_text(json.dumps(config))
    parts = config.get("model_cfg", config) if weights_config is None else weights_config
    keywords = {key: value for key, value in parts.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if parts.get("custom_text") else open_clip.CLIP)(**keywords)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, checkpoint_file)
    return ModelSpec(
        model_id="tiny-clip", config_file=config_file, checkpoint_file=checkpoint_file, device="cpu", threads=1
    )


class FragileModel:
    """A local model that dies at a white image and fails at a black one."""

    info: ModelInfo = HashEncoder(embedding_dim=4, image_size=2).info

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        if (pixels == 255).all(axis=(1, 2, 3)).any():
            os._exit(3)
        if len(pixels) == 1 and not pixels.any():
            raise MemoryError("out of memory, injected")
        vectors = np.zeros((len(pixels), 4), dtype=np.float32)
        vectors[:, 0] = 1
        return vectors

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        return np.eye(4, dtype=np.float32)[: len(tokens)]


class ChangingModel(FragileModel):
    """A fragile model that is another one while `flag` exists."""

    def __init__(self, flag: Path) -> None:
        if flag.exists():
            self.info = HashEncoder(embedding_dim=5, image_size=2).info


def load_nothing() -> FragileModel:
    raise ModelLoadFailed("no such checkpoint, injected")


def die_while_loading() -> FragileModel:
    os._exit(9)
