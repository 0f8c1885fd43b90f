"""Writes a CLIP with random weights as a Hugging Face folder; run with a Python that has transformers.

Takes the folder, in which `shape.json`, `vocab.json` and `merges.txt` lie already.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer


def main() -> None:
    folder = Path(sys.argv[1])
    shape = json.loads((folder / "shape.json").read_text())
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(**shape)).save_pretrained(folder)
    side = shape["vision_config"]["image_size"]
    images = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    length = shape["text_config"]["max_position_embeddings"]
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=length)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main()
