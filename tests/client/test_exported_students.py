"""What `export` wrote is read again by its place, with the student's own probabilities; a stranger's is checked."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vl2v
from support.client.student_factories import CLASSES, SIZE, TINY_VIT, coloured_views, fresh_classifier, text_head
from vl2v_client.cli.app import run
from vl2v_client.config.run import ExportFormat
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.export.exported import load_classifier, load_student
from vl2v_client.export.model_card import ModelFacts
from vl2v_client.export.student_export import write_export
from vl2v_client.student.model.classifier import StudentBundle, new_classifier
from vl2v_client.student.model.spec import StudentCard

PIXELS = coloured_views(6, views=1).pixels[:, 0]
FORMATS: tuple[ExportFormat, ...] = ("vl2v", "hf", "timm", "onnx")
ONNX = ("onnx", "onnxruntime", "onnxscript")


def student(*, text: bool = True) -> StudentBundle:
    card = StudentCard(TINY_VIT, SIZE, CLASSES, "VL2V-ADiP", 3, logit_scale=20.0 if text else None, temperature=0.7)
    return StudentBundle(fresh_classifier(text=text), card)


def export(folder: Path, format_: ExportFormat, bundle: StudentBundle) -> Path:
    if format_ == "onnx" and any(importlib.util.find_spec(name) is None for name in ONNX):
        pytest.skip("needs the extra onnx: make test-export")
    write_export(folder, format_, bundle, PIXELS, ModelFacts("drawn images"))
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "new.png"
    Image.fromarray(PIXELS[0]).save(path)
    return path


def probabilities(place: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> list[float]:
    assert run(["predict", str(place), str(image), "--all-probabilities", "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return [float(row[f"probability of {name}"]) for name in CLASSES]


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_predict_reads_every_format_by_its_folder_or_its_file(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], format_: ExportFormat, text: bool
) -> None:
    bundle = student(text=text)
    wanted = torch.from_numpy(bundle.logits(PIXELS[:1]) / 0.7).softmax(-1)[0].tolist()
    folder = export(tmp_path / "out", format_, bundle)
    file = next(
        name for name in ("student.onnx", "model.safetensors", "student.safetensors") if (folder / name).exists()
    )
    for place in (folder, folder / file):
        assert probabilities(place, image, capsys) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("format_", ["hf", "timm"])
def test_python_loads_them_too(tmp_path: Path, image: Path, format_: ExportFormat) -> None:
    wanted = vl2v.load(export(tmp_path / "own", "vl2v", student())).predict(image)
    found = vl2v.load(export(tmp_path / "out", format_, student()))
    assert found.class_names == CLASSES
    np.testing.assert_allclose(found.predict(image).probabilities, wanted.probabilities, atol=1e-5)


def test_a_convolutional_student_whose_head_has_another_name_is_read(tmp_path: Path) -> None:
    spec = replace(TINY_VIT, architecture="mobilenetv3_small_050", arguments={}, features=1024)
    bundle = student()
    classifier = new_classifier(spec, text_head(), class_count=3, seed=0)
    bundle = StudentBundle(classifier, replace(bundle.card, student=spec))
    again = load_student(export(tmp_path / "out", "timm", bundle), "cpu")
    np.testing.assert_allclose(again.logits(PIXELS), bundle.logits(PIXELS) / 0.7, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_runs_on_the_cpu_and_is_no_student_in_python(tmp_path: Path) -> None:
    folder = export(tmp_path / "out", "onnx", student())
    with pytest.raises(UsageError, match="runs on the CPU here: leave the device out"):
        load_classifier(folder, "cuda")
    with pytest.raises(
        UsageError, match="is an ONNX file: `vl2v-client predict` and ONNX Runtime read it; give the run"
    ):
        vl2v.load(folder)


def test_what_is_no_student_is_told_with_what_was_expected(tmp_path: Path, image: Path) -> None:
    for place, what in ((tmp_path, "holds no student"), (image, "is no folder"), (tmp_path / "gone", "does not exist")):
        with pytest.raises(DataError) as refused:
            load_classifier(place, "auto")
        told = str(refused.value)
        assert told.startswith(f"{place} {what}: give the folder of a finished `distill`")
        for name in ("student.safetensors", "student.json", "model.safetensors", "student.onnx", "TARGET/seedN/METHOD"):
            assert name in told


def test_a_run_that_has_not_ended_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    with pytest.raises(DataError, match=r"is a run that has not ended: the same `distill` goes on with it, or .*quick"):
        load_classifier(tmp_path, "auto")


def test_without_onnx_runtime_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "student.onnx").write_bytes(b"graph")
    with pytest.raises(UsageError, match="the package onnxruntime is not installed, of the extra `onnx`: pip install"):
        load_classifier(tmp_path / "student.onnx", "auto")


def test_what_is_no_graph_of_ours_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx: make test-export")
    (tmp_path / "student.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"student\.onnx is no export of a student .*export the student again"):
        load_classifier(tmp_path, "auto")


def changed(*entry: str, to: Any) -> Callable[[Path], None]:
    """Change an entry of the configuration."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        part = config
        for name in entry[:-1]:
            part = part[name]
        part[entry[-1]] = to
        (folder / "config.json").write_text(json.dumps(config))

    return change


def with_tensor(file: str, name: str, *shape: int) -> Callable[[Path], None]:
    """Put another tensor into a file."""

    def change(folder: Path) -> None:
        save_file({**load_file(folder / file), name: torch.zeros(shape)}, folder / file)

    return change


def unnamed(folder: Path) -> None:
    """Leave weights that do not say what they are of."""
    (folder / "config.json").unlink()
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed("architecture", to="hf-hub:somebody/model"), "`student.architecture`"),
        (changed("model_args", "pretrained", to=True), "`student.arguments.pretrained` .*no card has this entry"),
        (changed("model_args", "depth", to=2), "tensors differ: backbone.blocks.1"),
        (changed("pretrained_cfg", "tag", to="in1k"), "its configuration is not one of vl2v: its tag is 'in1k'"),
        (changed("pretrained_cfg", to=[]), "its configuration is not one of vl2v"),
        (changed("pretrained_cfg", "input_size", to=[3, 10**6, 10**6]), r"`student\.input\.size`"),
        (changed("label_names", to=["red", "red", "blue"]), "two classes have the same name"),
        (changed("label_names", to=["red"]), "tensors differ|has 1 classes"),
        (with_tensor("model.safetensors", "more", 3), "backbone.more is F32 .* and by the card absent"),
        (with_tensor("cosine_head.safetensors", "more", 3), "more is F32 .* and by the card absent"),
        (with_tensor("cosine_head.safetensors", "classifier", 3, 10**6), "its text classifier is F32"),
        (lambda folder: (folder / "config.json").write_text("{"), "is no export of a student"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "is no export of a student"),
        (unnamed, "neither config.json nor model.safetensors says what the weights are"),
    ],
)
def test_what_no_export_has_is_refused(tmp_path: Path, change: Callable[[Path], Any], told: str) -> None:
    folder = export(tmp_path / "out", "hf", student())
    change(folder)
    with pytest.raises(DataError, match=told):
        load_student(folder, "cpu")
