"""Golden vectors: the same model passes at every start; other weights, another activation or normalisation do not."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_vendor.bootstrap import model_spec, packaged_golden
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_loading import load_model
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, build_model
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.vector_checks import PROBE_TEXTS, golden_path, probe_images
from vl2v_vendor.settings import Settings

QUICK = {**CONFIG, "quick_gelu": True}


def spec_in(folder: Path, config: dict[str, object] = CONFIG, *, seed: int = 0) -> ModelSpec:
    folder.mkdir()
    return write_tiny_clip(folder, config=config, seed=seed)


def test_the_first_start_keeps_vectors_and_later_ones_compare(tmp_path: Path) -> None:
    spec, folder = spec_in(tmp_path / "model"), tmp_path / "golden"
    load = partial(load_model, spec, golden_folder=folder)
    info = load().info
    path = golden_path(folder, info)
    kept = path.read_bytes()
    assert json.loads(kept)["weights_sha"] == info.weights_sha
    assert pickle.loads(pickle.dumps(load))().info == info
    assert [file.read_bytes() for file in folder.iterdir()] == [kept]


def test_quick_gelu_weights_under_a_gelu_configuration_are_caught(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    quick = load_model(spec_in(tmp_path / "quick", QUICK), golden_folder=folder)
    plain = spec_in(tmp_path / "plain")
    assert OpenClipModel(plain).info == quick.info  # nothing else about the model tells
    with pytest.raises(ModelLoadFailed, match=r"(?s)cosine .* below 0\.99999.*weights are the same.*QuickGELU"):
        load_model(plain, golden_folder=folder)


def test_other_weights_are_caught(tmp_path: Path) -> None:
    load_model(spec_in(tmp_path / "a"), golden_folder=tmp_path / "golden")
    with pytest.raises(ModelLoadFailed, match="The weights are others"):
        load_model(spec_in(tmp_path / "b", seed=1), golden_folder=tmp_path / "golden")


def test_another_normalisation_is_caught(tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "model")
    load_model(spec, golden_folder=tmp_path / "golden")
    with pytest.raises(ModelLoadFailed, match=r"The preprocessing changed from safe-1/.* to safe-1/"):
        load_model(replace(spec, image_mean=(0.5, 0.5, 0.5)), golden_folder=tmp_path / "golden")


def test_another_width_is_caught(tmp_path: Path) -> None:
    load_model(spec_in(tmp_path / "a"), golden_folder=tmp_path / "golden")
    with pytest.raises(ModelLoadFailed, match=r"is 0\.00000"):
        load_model(spec_in(tmp_path / "b", {**CONFIG, "embed_dim": 24}), golden_folder=tmp_path / "golden")


def written(spec: ModelSpec, folder: Path) -> Path:
    """The golden file that a first start writes."""
    load_model(spec, golden_folder=folder / "first")
    [file] = (folder / "first").iterdir()
    return file


def test_a_file_that_was_named_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"no golden file .*typo\.json"):
        load_model(spec_in(tmp_path / "model"), golden_folder=tmp_path, golden_file=tmp_path / "typo.json")
    assert not (tmp_path / "typo.json").exists()


def test_a_model_that_is_broken_from_the_start_is_not_golden(tmp_path: Path) -> None:
    broken = replace(spec_in(tmp_path / "model"), image_std=(0.0, 0.5, 0.5))
    with pytest.raises(ModelLoadFailed, match="is not finite"):
        load_model(broken, golden_folder=tmp_path / "golden")
    assert not list((tmp_path / "golden").glob("*.json"))


def test_a_policy_or_precision_may_change(tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "model")
    file = written(spec, tmp_path)
    kept = file.read_bytes()
    load_model(replace(spec, policy="reference-1"), golden_folder=tmp_path, golden_file=file)
    load_model(replace(spec, precision="bf16"), golden_folder=tmp_path, golden_file=file)
    assert file.read_bytes() == kept
    load_model(replace(spec, precision="bf16"), golden_folder=tmp_path / "golden")
    load_model(spec, golden_folder=tmp_path / "golden")
    assert len(list((tmp_path / "golden").iterdir())) == 2


@pytest.mark.parametrize("content", ["", "no JSON", "{}", "[]"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(ModelLoadFailed, match=r"golden\.json is no golden file"):
        load_model(spec_in(tmp_path / "model"), golden_folder=tmp_path, golden_file=tmp_path / "golden.json")


def test_a_file_without_the_vectors_is_named(tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "model")
    file = written(spec, tmp_path)
    kept = json.loads(file.read_text())
    kept["vectors"]["image 1"] = kept["vectors"]["image 1"][:-8]
    file.write_text(json.dumps(kept))
    with pytest.raises(ModelLoadFailed, match="holds no vector of `image 1`"):
        load_model(spec, golden_folder=tmp_path, golden_file=file)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_in(tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadFailed, match="cannot read golden file"):
        load_model(spec, golden_folder=tmp_path / "file" / "golden")

    def fail(temporary: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vl2v_vendor.host.replace_durably", fail)
    with pytest.raises(ModelLoadFailed, match=r"cannot write .*: No space left on device; .* `golden_file`"):
        load_model(spec, golden_folder=tmp_path / "golden")


def test_the_packaged_teacher_is_what_it_was(tmp_path: Path) -> None:
    spec = model_spec(Settings(device="cpu", model_threads=1))
    file = packaged_golden(spec)
    assert file is not None
    assert file.is_file()
    load_model(spec, golden_folder=tmp_path, golden_file=file)
    assert list(tmp_path.iterdir()) == []
    assert packaged_golden(replace(spec, image_mean=(0.5, 0.5, 0.5))) is None


def test_probe_inputs_never_change() -> None:
    digest = "71d352c7b15305b371980c89ebdcef342e7b0ddcce7f930cce8fceb338c98a04"
    assert hashlib.sha256(probe_images(3, 32).tobytes()).hexdigest() == digest
    assert len(set(PROBE_TEXTS)) == 16
    images = probe_images(16, 64).reshape(16, -1)
    assert len({image.tobytes() for image in images}) == 16


@pytest.mark.parametrize("name", ["ViT-B-32.pt", "mine-quickgelu.pt"])
def test_a_file_that_is_known_to_need_quick_gelu_is_refused(tmp_path: Path, name: str) -> None:
    import torch

    quick, plain = spec_in(tmp_path / "quick", QUICK), spec_in(tmp_path / "plain")
    torch.save(build_model(plain).state_dict(), tmp_path / name)
    with pytest.raises(ModelLoadFailed, match="QuickGELU"):
        build_model(replace(plain, checkpoint_file=tmp_path / name))
    build_model(replace(quick, checkpoint_file=tmp_path / name))
