"""The local teacher says what open_clip says, its image tower is a student, and what is wrong is named."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.export.weights import export_bundle, load_bundle
from vl2v_client.local.origin import LocalModel
from vl2v_client.local.teacher import LOCAL_LEDGER, LocalTeacher
from vl2v_client.runs.local_source import LocalSource
from vl2v_client.student.model.classifier import StudentBundle, StudentClassifier, TextHead
from vl2v_client.student.model.network import Student
from vl2v_client.student.model.spec import StudentCard
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel

TEXTS = ["a photo of a dog", "a photo of a giraffe"]
TIMM_TOWER = {"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}


def pixels(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def teacher_of(folder: Path, config: dict[str, Any] = CONFIG) -> LocalTeacher:
    spec = write_tiny_clip(folder, config=config)
    return LocalTeacher(LocalModel(str(spec.config_file), spec.checkpoint_file))


def test_it_says_what_a_vendor_with_the_same_files_says(tmp_path: Path) -> None:
    spec = write_tiny_clip(tmp_path)
    teacher, vendor = LocalTeacher(LocalModel(str(spec.config_file), spec.checkpoint_file)), OpenClipModel(spec)
    images = pixels(130)  # more than one batch
    np.testing.assert_allclose(teacher.encode_images(images), vendor.encode_images(images), atol=1e-6)
    tokens = teacher._tokenizer(TEXTS, context_length=24).numpy()
    np.testing.assert_allclose(teacher.encode_texts(TEXTS), vendor.encode_tokens(tokens), atol=1e-6)
    facts, info = teacher.facts, vendor.info
    for name in ("embedding_dim", "image_size", "context_length", "logit_scale", "logit_bias", "weights_sha"):
        assert getattr(facts, name) == getattr(info, name), name
    assert (teacher.mean, teacher.std) == (info.image_mean, info.image_std)
    assert (facts.ledger_id, facts.image_price.unit_price_micro) == (LOCAL_LEDGER, 0)


def test_the_preprocessing_is_the_configuration_s_own(tmp_path: Path) -> None:
    plain = teacher_of(tmp_path)
    half = [0.5, 0.5, 0.5]
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": half, "std": half}}
    (tmp_path / "hub.json").write_text(json.dumps(config))
    other = LocalTeacher(LocalModel(str(tmp_path / "hub.json"), tmp_path / "tiny-clip.safetensors"))
    assert other.mean == other.std == tuple(half)
    assert other.facts.preprocessing_id != plain.facts.preprocessing_id
    assert np.abs(other.encode_images(pixels(2)) - plain.encode_images(pixels(2))).max() > 1e-3


@pytest.mark.parametrize("tower", [CONFIG["vision_cfg"], TIMM_TOWER], ids=["transformer", "timm"])
def test_its_image_tower_is_a_student_that_can_be_shipped(tmp_path: Path, tower: dict[str, Any]) -> None:
    teacher = teacher_of(tmp_path, {**CONFIG, "vision_cfg": tower})
    with EmbeddingCache(tmp_path / "client.db") as cache:
        spec = LocalSource(teacher, cache).tower()
    student = Student(*teacher.image_tower()).eval()
    matrix = teacher.encode_texts(TEXTS)
    classifier = StudentClassifier(student, spec.input, TextHead(matrix, teacher.facts.logit_scale))
    expected = teacher.facts.logit_scale * teacher.encode_images(pixels(3)) @ matrix.T
    np.testing.assert_allclose(classifier.logits(pixels(3)), expected, atol=1e-3)

    with torch.no_grad():  # trained weights, not the teacher's: what is shipped is the student
        student.projection.weight.mul_(-1)
    card = StudentCard(spec, 32, ("dog", "giraffe"), "VL2V-SD", 0, logit_scale=teacher.facts.logit_scale)
    export_bundle(tmp_path / "student", StudentBundle(classifier, card), check_pixels=pixels(3))
    again = load_bundle(tmp_path / "student")
    np.testing.assert_array_equal(again.classifier.logits(pixels(3)), classifier.logits(pixels(3)))
    assert json.loads((tmp_path / "student" / "student.json").read_text())["student"]["needs"] == "vl2v[local]"


def test_without_open_clip_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_tiny_clip(tmp_path)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"extra `local`: pip install 'open-clip-torch"):
        LocalTeacher(LocalModel(str(spec.config_file), spec.checkpoint_file))


@pytest.mark.parametrize(
    ("changed", "kind", "complaint"),
    [
        ({"model": "ViT-B-61/openai"}, UsageError, "knows no model 'ViT-B-61'; the nearest names are ViT-B-16"),
        ({"model": "ViT-B-32"}, UsageError, "needs weights: a tag as in ViT-B-32/TAG"),
        ({"model": "ViT-B-32/magic"}, UsageError, "one of openai"),
        ({"weights": Path("absent.safetensors")}, DataError, "no checkpoint for .* at absent.safetensors"),
        ({"weights": None}, UsageError, r"has no weights: name its .* with purchase\.local_weights"),
        ({"precision": "fp16"}, UsageError, "needs a GPU"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path: Path, changed: dict[str, Any], kind: type, complaint: str) -> None:
    spec = write_tiny_clip(tmp_path)
    wanted = LocalModel(str(spec.config_file), spec.checkpoint_file)
    if "model" in changed:
        wanted = replace(wanted, weights=None)
    with pytest.raises(kind, match=complaint):
        LocalTeacher(replace(wanted, **changed))


def test_damaged_files_long_texts_and_towers_without_a_projection_are_refused(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    with pytest.raises(DataError, match="tokens; the teacher reads 24: shorten it"):
        teacher.encode_texts(["word " * 30])
    weights = tmp_path / "tiny-clip.safetensors"
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(DataError, match="no open_clip model configuration"):
        LocalTeacher(LocalModel(str(tmp_path / "wrong.json"), weights))
    weights.write_bytes(b"damaged")
    with pytest.raises(DataError, match="holds no weights of"):
        LocalTeacher(LocalModel(str(tmp_path / "tiny-clip.json"), weights))
    torch.save({"state_dict": Path}, tmp_path / "more.pt")  # whatever is no tensor, code among it
    for model in (str(tmp_path / "tiny-clip.json"), "ViT-S-32-alt"):
        with pytest.raises(DataError, match=r"more than weights.* save the model's state_dict as \.safetensors"):
            LocalTeacher(LocalModel(model, tmp_path / "more.pt"))
    attention_pool = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}
    cache = EmbeddingCache(tmp_path / "client.db")
    with cache, pytest.raises(UsageError, match="does not end in a linear projection"):
        LocalSource(teacher_of(tmp_path, {**CONFIG, "vision_cfg": attention_pool}), cache).tower()
