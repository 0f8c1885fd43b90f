"""Models with random weights, on disk: they cost what trained ones cost, and need no download.

The same architecture in two forms: as open_clip's configuration and checkpoint, and as a Hugging Face folder for
servers that read those.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SEED = 0
_STANDARD_HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True)
class RandomModel:
    """An open_clip model: configuration and checkpoint."""

    config_file: Path
    checkpoint_file: Path

    @property
    def name(self) -> str:
        return self.config_file.stem

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.config_file.read_text())
        return found

    @property
    def image_size(self) -> int:
        return int(self.config["vision_cfg"]["image_size"])


def save_random_model(folder: Path, architecture: str) -> RandomModel:
    """Seeded random weights of an architecture, written once.

    Args:
        folder: for the files.
        architecture: a name that open_clip knows, or a file with a configuration.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if Path(architecture).is_file():
        name, config = Path(architecture).stem, json.loads(Path(architecture).read_text())
    else:
        name, config = architecture, open_clip.get_model_config(architecture)
    model = RandomModel(folder / f"{name}.json", folder / f"{name}.safetensors")
    model.config_file.write_text(json.dumps(config))
    if not model.checkpoint_file.exists():
        torch.manual_seed(_SEED)
        unfinished = model.checkpoint_file.with_suffix(".tmp")
        save_file(build(config).state_dict(), unfinished)
        unfinished.rename(model.checkpoint_file)
    return model


def build(config: dict[str, Any]) -> Any:
    """open_clip's model of a configuration, as `create_model` makes it."""
    from open_clip.model import CLIP

    return CLIP(**config)


def load(model: RandomModel) -> Any:
    """The open_clip model with its weights, in fp32 on the CPU, for inference."""
    import open_clip

    loaded = build(model.config)
    open_clip.load_checkpoint(loaded, str(model.checkpoint_file), weights_only=True)
    return loaded.eval().requires_grad_(False)


def save_hugging_face_twin(model: RandomModel, folder: Path, python: Path) -> Path:
    """A Hugging Face CLIP of the same shape with random weights; `python` has transformers.

    Raises:
        RuntimeError: with the last words of the program that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape.json").write_text(json.dumps(hugging_face_shape(model.config)))
    _write_vocabulary(folder)
    words = [str(python), str(Path(__file__).with_name("hugging_face_twin.py")), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return folder


def hugging_face_shape(config: dict[str, Any]) -> dict[str, Any]:
    """`CLIPConfig`'s arguments for an open_clip configuration of a ViT."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    head_width = vision.get("head_width", _STANDARD_HEAD_WIDTH)
    return {
        "projection_dim": config["embed_dim"],
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // head_width,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "projection_dim": config["embed_dim"],
            "hidden_act": "gelu",
        },
        "text_config": {
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "projection_dim": config["embed_dim"],
            "hidden_act": "gelu",
        },
    }


def _write_vocabulary(folder: Path) -> None:
    """CLIP's vocabulary in the form of Hugging Face, from open_clip's own tokenizer."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): number for word, number in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
