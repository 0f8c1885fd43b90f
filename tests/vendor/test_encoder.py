"""open_clip models: the same vectors as open_clip's own, whatever form the files have; errors that name the remedy."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, build_model, check_model_name
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel, hash_weights
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer, WordTokenizer

TEXTS = ["a photo of a dog", "a", "a quick brown fox jumps over the lazy dog"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> OpenClipModel:
    return OpenClipModel(spec)


@pytest.fixture(scope="module")
def tokenizer(spec: ModelSpec) -> OpenClipTokenizer:
    return OpenClipTokenizer(spec, context_length=24)


def rows(tokenizer: OpenClipTokenizer, texts: list[str], length: int = 0) -> np.ndarray:
    found = [tokenizer.tokenize(text, truncate=False).model_input for text in texts]
    batch = np.zeros((len(texts), max(length, *(len(row) for row in found))), dtype=np.int64)
    for row, token_ids in zip(batch, found, strict=True):
        row[: len(token_ids)] = token_ids
    return batch


def test_images_become_open_clips_own_vectors(spec: ModelSpec, model: OpenClipModel) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = model.encode_images(pixels)
    reference = build_model(spec).eval()
    transform = image_transform_v2(PreprocessCfg(**reference.visual.preprocess_cfg), is_train=False)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image)) for image in pixels])
        expected = reference.encode_image(batch, normalize=True).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.encode_images(pixels[:1]), found[:1], atol=1e-6)


@pytest.mark.parametrize("custom_text", [False, True])
def test_short_texts_give_the_padded_vectors(tmp_path: Path, tokenizer: OpenClipTokenizer, custom_text: bool) -> None:
    config = {**CONFIG, "custom_text": True} if custom_text else CONFIG
    spec = write_tiny_clip(tmp_path, config=config)
    model, reference = OpenClipModel(spec), build_model(spec).eval()
    short, padded = rows(tokenizer, TEXTS), rows(tokenizer, TEXTS, length=24)
    assert short.shape[1] < padded.shape[1] == 24
    with torch.inference_mode():
        expected = reference.encode_text(torch.from_numpy(padded), normalize=True).numpy()
    np.testing.assert_allclose(model.encode_tokens(short), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode_tokens(padded), expected, atol=1e-6)


def test_the_model_says_what_it_is(model: OpenClipModel) -> None:
    info = model.info
    assert (info.id, info.embedding_dim, info.image_size, info.context_length) == ("tiny-clip", 16, 32, 24)
    assert (info.precision, info.device, info.logit_bias) == ("fp32", "cpu", 0.0)
    assert info.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert info.preprocessing_id.startswith("safe-1/shortest-bicubic-32/")


def test_the_hub_form_and_the_settings_override_preprocessing(tmp_path: Path) -> None:
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    spec = write_tiny_clip(tmp_path, config={"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    info = OpenClipModel(spec).info
    assert (info.image_mean, info.interpolation, info.resize_mode) == ((0.1, 0.2, 0.3), "bilinear", "squash")
    half = ModelSpec(**{**as_fields(spec), "image_mean": (0.5, 0.5, 0.5), "interpolation": "bicubic"})
    overridden = OpenClipModel(half).info
    assert overridden.image_mean == (0.5, 0.5, 0.5)
    assert overridden.image_std == (0.4, 0.5, 0.6)
    assert overridden.preprocessing_id != info.preprocessing_id
    assert overridden.weights_sha == info.weights_sha


def test_the_weights_hash_follows_the_weights_and_not_the_file(tmp_path: Path, spec: ModelSpec) -> None:
    state = build_model(spec).state_dict()
    torch.save(state, tmp_path / "same.pt")
    same = ModelSpec(**{**as_fields(spec), "checkpoint_file": tmp_path / "same.pt"})
    assert hash_weights(build_model(same).state_dict()) == hash_weights(state)
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["visual.class_embedding"][0] += 1e-3
    assert hash_weights(changed) != hash_weights(state)


def test_half_precision_stays_close_and_says_its_name(spec: ModelSpec, model: OpenClipModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    half = OpenClipModel(ModelSpec(**{**as_fields(spec), "precision": "bf16"}))
    found = half.encode_images(pixels)
    assert found.dtype == np.float32
    assert (found * model.encode_images(pixels)).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert half.info.precision == "bf16"
    assert half.info.weights_sha == model.info.weights_sha


def test_siglip_reports_its_bias(tmp_path: Path) -> None:
    spec = write_tiny_clip(tmp_path, config={**CONFIG, "init_logit_bias": -10.0})
    assert OpenClipModel(spec).info.logit_bias == pytest.approx(-10)


@pytest.mark.parametrize(
    ("name", "pretrained", "fragment"),
    [
        ("ViT-B-33", "openai", "ViT-B-32"),
        ("ViT-B-32", None, "needs weights"),
        ("ViT-B-32", "opennai", "laion2b_s34b_b79k"),
    ],
)
def test_a_wrong_name_gets_the_right_ones(name: str, pretrained: str | None, fragment: str) -> None:
    with pytest.raises(ModelLoadFailed, match=fragment):
        check_model_name(name, pretrained)


def test_a_wrong_file_is_named(tmp_path: Path, spec: ModelSpec) -> None:
    fields = as_fields(spec)
    with pytest.raises(ModelLoadFailed, match=r"nowhere\.safetensors"):
        build_model(ModelSpec(**{**fields, "checkpoint_file": tmp_path / "nowhere.safetensors"}))
    with pytest.raises(ModelLoadFailed, match=r"has no weights; give its checkpoint as --pretrained"):
        build_model(ModelSpec(**{**fields, "checkpoint_file": None}))
    with pytest.raises(ModelLoadFailed, match=r"nowhere\.json"):
        build_model(ModelSpec(**{**fields, "config_file": tmp_path / "nowhere.json"}))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ModelLoadFailed, match="embed_dim"):
        build_model(ModelSpec(**{**fields, "config_file": tmp_path / "list.json"}))
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelLoadFailed, match=r"damaged\.safetensors"):
        build_model(ModelSpec(**{**fields, "checkpoint_file": tmp_path / "damaged.safetensors"}))
    wider = {**CONFIG, "embed_dim": 17}
    with pytest.raises(ModelLoadFailed, match=r"does not fit .* size mismatch"):
        build_model(write_tiny_clip(tmp_path, weights_config=wider))


def test_an_unknown_device_is_refused(spec: ModelSpec) -> None:
    for device in ("quantum", "cuda:99"):
        with pytest.raises(ModelLoadFailed, match=device):
            OpenClipModel(ModelSpec(**{**as_fields(spec), "device": device}))


def test_tokens_are_counted_before_the_cut(tokenizer: OpenClipTokenizer) -> None:
    assert tokenizer.tokenize("a photo of a dog", truncate=False).tokens == 7
    with pytest.raises(ItemFailure, match="52 tokens and the model reads 24") as caught:
        tokenizer.tokenize("dog " * 50, truncate=False)
    assert caught.value.code == "text_too_long"
    cut = tokenizer.tokenize("dog " * 50, truncate=True)
    assert (cut.tokens, cut.truncated, len(cut.model_input)) == (52, True, 24)
    assert cut.model_input[-1] == tokenizer.tokenize("dog", truncate=False).model_input[-1]


def test_the_tokenizer_gives_open_clips_ids(tokenizer: OpenClipTokenizer) -> None:
    import open_clip

    expected = open_clip.SimpleTokenizer(context_length=24)(TEXTS).numpy()
    np.testing.assert_array_equal(rows(tokenizer, TEXTS, length=24), expected)


def as_fields(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ModelSpec.__dataclass_fields__}


def test_the_word_tokenizer_counts_too() -> None:
    tokenizer = WordTokenizer(context_length=5)
    assert tokenizer.tokenize("three more words", truncate=False).tokens == 5
    with pytest.raises(ItemFailure, match="6 tokens"):
        tokenizer.tokenize("one two three four", truncate=False)
    assert len(tokenizer.tokenize("one two three four", truncate=True).model_input) == 5


@pytest.mark.anyio
async def test_the_hash_encoder_is_deterministic_and_ignores_padding() -> None:
    encoder = HashEncoder(embedding_dim=8, image_size=2)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    first = await encoder.encode_images(pixels)
    assert first.shape == (2, 8)
    np.testing.assert_array_equal(first[1:], await encoder.encode_images(pixels[1:]))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    tokens = np.array([[1, 2, 3, 0, 0]])
    np.testing.assert_array_equal(await encoder.encode_tokens(tokens), await encoder.encode_tokens(tokens[:, :3]))


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file", "ignore:.*torch.jit")
@pytest.mark.parametrize("by", ["configuration", "name"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "torchscript"])
def test_a_checkpoint_with_more_than_weights_is_not_opened(tmp_path: Path, spec: ModelSpec, by: str, form: str) -> None:
    file = tmp_path / "bomb.pt"
    if form == "pickle":
        file.write_bytes(pickle.dumps(protocol=2, obj={"state_dict": Bomb(tmp_path / "executed")}))
    elif form == "torchscript":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    else:
        torch.save({"state_dict": Bomb(tmp_path / "executed")}, file, _use_new_zipfile_serialization=form == "zip")
    wanted = (
        ModelSpec(model_id="bomb", name="ViT-S-32-alt", pretrained=str(file), device="cpu")
        if by == "name"
        else ModelSpec(**{**as_fields(spec), "checkpoint_file": file})
    )
    with pytest.raises(
        ModelLoadFailed, match=r"bomb\.pt is damaged or holds more than weights, .* state_dict as \.safetensors"
    ):
        build_model(wanted)
    assert not (tmp_path / "executed").exists()
