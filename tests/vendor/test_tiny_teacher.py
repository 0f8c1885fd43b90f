"""The shipped teacher: loads through open_clip, returns unit vectors, and is strong on every benchmark style."""

import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from vl2v_client.data.shapes import render_sample
from vl2v_client.data.shapes.drawing_styles import STYLES
from vl2v_client.data.shapes.objects import CLASS_NAMES

NAME = "tiny-teacher"
ASSETS = Path(str(files("vl2v_vendor"))) / "assets"
EVALUATION_SEED = 987_654


@pytest.fixture(scope="module")
def teacher() -> Iterator[open_clip.CLIP]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    open_clip.add_model_config(ASSETS / f"{NAME}.json")
    yield open_clip.create_model(NAME, pretrained=str(ASSETS / f"{NAME}.safetensors")).eval()
    torch.set_num_threads(threads)


def embed_images(model: open_clip.CLIP, pixels: torch.Tensor) -> torch.Tensor:
    batch = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    with torch.inference_mode():
        return model.encode_image((batch - mean) / std, normalize=True)


def embed_texts(model: open_clip.CLIP, texts: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode_text(open_clip.get_tokenizer(NAME)(texts), normalize=True)


def test_weights_are_small_and_the_scale_is_sound(teacher: open_clip.CLIP) -> None:
    assert (ASSETS / f"{NAME}.safetensors").stat().st_size <= 12_000_000
    assert 1.0 <= teacher.logit_scale.exp().item() <= 100.0 + 1e-3
    assert all(math.isfinite(parameter.abs().sum().item()) for parameter in teacher.parameters())
    assert teacher.visual.image_mean == open_clip.OPENAI_DATASET_MEAN


def test_embeddings_are_unit_vectors_of_one_width(teacher: open_clip.CLIP) -> None:
    images = embed_images(teacher, torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8))
    texts = embed_texts(teacher, ["a photo of a key", "words never seen in training"])
    assert images.shape[1] == texts.shape[1]
    for vectors in (images, texts):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


@pytest.mark.parametrize("style", STYLES)
def test_zero_shot_accuracy(teacher: open_clip.CLIP, style: str) -> None:
    classifier = embed_texts(teacher, [f"a photo of a {name}" for name in CLASS_NAMES])
    labels = torch.arange(len(CLASS_NAMES)).repeat_interleave(8)
    names = [(CLASS_NAMES[label], index % 8) for index, label in enumerate(labels)]
    fresh = np.stack([render_sample(style, name, index, seed=EVALUATION_SEED).pixels for name, index in names])
    found = (embed_images(teacher, torch.from_numpy(fresh)) @ classifier.T).argmax(dim=1)
    assert (found == labels).float().mean().item() >= 0.9
