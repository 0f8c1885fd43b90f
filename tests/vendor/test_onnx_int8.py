"""int8 on ONNX Runtime: close to fp32, independent of neighbours, refused below a floor, clear without its packages."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.vendor.serving_shop import noise, save
from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from support.vendor.vendor_shell import invoke
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_loading import OnnxInt8Model, load_model, load_pair
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer
from vl2v_vendor.engine.models.vector_checks import check_parity, measure_parity, read_parity


@pytest.fixture(autouse=True)
def logging_on() -> Iterator[None]:
    """The command silences logging for its process."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return replace(write_tiny_clip(tmp_path_factory.mktemp("tiny-clip")), precision="int8")


@pytest.fixture(scope="module")
def pair(spec: ModelSpec) -> tuple[OpenClipModel, OnnxInt8Model]:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    exact, model = load_pair(spec)
    assert isinstance(exact, OpenClipModel)
    assert isinstance(model, OnnxInt8Model)
    return exact, model


def pictures(count: int) -> np.ndarray:
    return np.stack([np.asarray(noise(32, 32, seed)) for seed in range(count)])


def test_int8_is_close_and_says_its_name(pair: tuple[OpenClipModel, OnnxInt8Model]) -> None:
    exact, model = pair
    assert model.info == replace(exact.info, precision="int8")
    report = measure_parity(exact, model, OpenClipTokenizer(ModelSpec(model_id="", name="ViT-B-32"), context_length=24))
    assert 0.99 <= report.lowest < 1
    assert (len(report.image_cosines), len(report.text_cosines)) == (16, 16)
    assert report.lowest == min(*report.image_cosines, *report.text_cosines)
    vectors = model.encode_images(pictures(3))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_vector_depends_on_its_neighbours(pair: tuple[OpenClipModel, OnnxInt8Model]) -> None:
    _, model = pair
    images = pictures(4)
    images[1] = 255
    together = model.encode_images(images)
    np.testing.assert_array_equal(together, np.concatenate([model.encode_images(image[None]) for image in images]))
    short, long = [49406, 320, 49407], [49406, *range(1000, 1020), 49407]
    batch = np.zeros((2, 24), dtype=np.int64)
    batch[0, : len(short)], batch[1, : len(long)] = short, long
    np.testing.assert_array_equal(model.encode_tokens(batch)[0], model.encode_tokens(np.array([short]))[0])
    assert np.isfinite(model.encode_tokens(batch)).all()


@pytest.mark.parametrize("length", [3, 13, 24])
def test_texts_of_every_length_are_read_to_their_end(pair: tuple[OpenClipModel, OnnxInt8Model], length: int) -> None:
    exact, model = pair
    tokens = np.array([[49406, *range(500, 498 + length), 49407]])
    assert tokens.shape == (1, length)
    assert float((exact.encode_tokens(tokens) * model.encode_tokens(tokens)).sum()) > 0.99


def test_a_model_below_the_floor_is_refused(pair: tuple[OpenClipModel, OnnxInt8Model]) -> None:
    tokenizer = OpenClipTokenizer(ModelSpec(model_id="", name="ViT-B-32"), context_length=24)
    report = check_parity(*pair, tokenizer, 0.99)
    with pytest.raises(ModelLoadFailed, match=f"int8 is not sold: the lowest cosine to fp32 is {report.lowest:.4f}"):
        check_parity(*pair, tokenizer, report.lowest + 1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_the_parity_report_and_golden_vectors_are_kept(spec: ModelSpec, tmp_path: Path) -> None:
    info = load_model(spec, golden_folder=tmp_path).info
    assert read_parity(tmp_path, info).startswith("cosine to fp32 at least 0.99")
    load_model(spec, golden_folder=tmp_path)  # the next export gives the golden vectors again


def test_another_text_tower_stays_exact(pair: tuple[OpenClipModel, OnnxInt8Model], tmp_path: Path) -> None:
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "no_causal_mask": True}}
    exact, model = load_pair(replace(write_tiny_clip(tmp_path, config=config), precision="int8"))
    tokens = np.array([[49406, 320, 1125, 49407]])
    np.testing.assert_array_equal(model.encode_tokens(tokens), exact.encode_tokens(tokens))


def test_int8_needs_the_cpu(spec: ModelSpec) -> None:
    with pytest.raises(ModelLoadFailed, match="`cuda`"):
        load_pair(replace(spec, device="cuda"))


def test_missing_packages_are_named(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelLoadFailed, match="needs the package onnx: pip install onnx onnxruntime onnxscript"):
        load_pair(spec)


def run_parity(*arguments: object) -> tuple[int, str]:
    done = invoke("parity", *map(str, arguments))
    return done.exit_code, done.stdout


def test_the_command_compares_any_precision_on_ones_own_images(spec: ModelSpec, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(save(noise(50, 40, number), "PNG"))
    (tmp_path / "notes.txt").write_text("no image")
    model = ["--model-config", spec.config_file, "--pretrained", spec.checkpoint_file, "--device", "cpu"]
    code, out = run_parity("--precision", "bf16", "--images", tmp_path, *model, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["precision"] == "bf16"
    assert len(report["image_cosines"]) == 3
    assert 0.999 < report["lowest"] < 1
    code, out = run_parity("--precision", "fp32", *model)
    assert code == 0
    assert "tiny-clip: fp32 against fp32" in out
    assert "1.00000" in out


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_the_command_fails_where_int8_would_not_be_sold(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL2V_VENDOR_INT8_MIN_COSINE", "1")
    code, out = run_parity("--model-config", spec.config_file, "--pretrained", spec.checkpoint_file)
    assert code == 1
    assert "int8 against fp32" in out
