"""An export answers as the student does, loads by other people's programs without a missing name, or is not there.

`VL2V_EXPORT_IMAGES` is the number of drawn images that the formats are compared on; `make test-export` takes 1,000.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize

from support.client.student_factories import CLASSES, SIZE, TINY_VIT, fresh_classifier, text_head
from vl2v_client.config.run import ExportFormat
from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.shapes import render_sample
from vl2v_client.data.shapes.drawing_styles import STYLES
from vl2v_client.data.shapes.objects import CLASS_NAMES
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import log_probabilities
from vl2v_client.export import student_export, timm_format
from vl2v_client.export.model_card import ModelFacts
from vl2v_client.export.student_export import write_export
from vl2v_client.export.weights import load_bundle
from vl2v_client.student.model.classifier import StudentBundle, new_classifier, student_input
from vl2v_client.student.model.spec import StudentCard

IMAGES = int(os.environ.get("VL2V_EXPORT_IMAGES", "24"))
FACTS = ModelFacts("drawn images", "shapes", ("art", "photo"))
ONNX = ("onnx", "onnxruntime", "onnxscript")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ONNX), reason="needs the extra onnx: make test-export"
)


def drawn(size: int = SIZE, count: int = IMAGES) -> NDArray[np.uint8]:
    pictures = islice(zip(cycle(product(STYLES, CLASS_NAMES)), range(count), strict=False), count)
    return np.stack([render_sample(style, name, index, seed=7, size=size).pixels for (style, name), index in pictures])


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return drawn()


def bundle(*, text: bool = True, view_size: int = SIZE) -> StudentBundle:
    card = StudentCard(
        TINY_VIT,
        view_size,
        CLASSES,
        "VL2V-ADiP" if text else "ERM",
        seed=3,
        prompt_templates=("a photo of a {class}",) if text else (),
        logit_scale=20.0 if text else None,
        temperature=0.7,
        teacher={"id": "tiny-clip", "weights_sha": "ab"},
        queries={"images": 24, "texts": 3},
        scores={"source_validation": 0.75, "target": 0.5},
        target_domain="sketch",
    )
    return StudentBundle(fresh_classifier(text=text), card)


def own(student: StudentBundle, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The student's own probabilities."""
    return np.exp(log_probabilities(student.classifier.logits(pixels), student.card.temperature))


def network_input(student: StudentBundle, pixels: NDArray[np.uint8]) -> torch.Tensor:
    return student_input(pixels, student.card.student.input, torch.device("cpu"))


def same_class(found: NDArray[Any], wanted: NDArray[np.float64]) -> bool:
    return bool((found.argmax(axis=1) == wanted.argmax(axis=1)).all())


@pytest.mark.parametrize("text", [True, False])
@torch.no_grad()
def test_timm_loads_it_by_checkpoint_path_with_the_same_classes(
    tmp_path: Path, pixels: NDArray[np.uint8], text: bool
) -> None:
    student = bundle(text=text)
    agreement = write_export(tmp_path / "timm", "timm", student, pixels, FACTS)
    weights = tmp_path / "timm" / "model.safetensors"
    empty = timm.create_model(TINY_VIT.architecture, num_classes=3, **TINY_VIT.arguments)
    keys = empty.load_state_dict(load_file(weights), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == ([], [])
    model = timm.create_model(
        TINY_VIT.architecture, num_classes=3, checkpoint_path=str(weights), **TINY_VIT.arguments
    ).eval()
    found, wanted = model(network_input(student, pixels)).softmax(-1).numpy(), own(student, pixels)
    assert same_class(found, wanted)
    assert (agreement.images, agreement.exact) == (len(pixels), not text)
    assert np.abs(found - wanted).max() == pytest.approx(agreement.largest, abs=1e-6)
    assert agreement.largest < (0.1 if text else 1e-4)


@torch.no_grad()
def test_the_exact_probabilities_of_a_text_classifier_travel_beside_it(
    tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    student = bundle()
    write_export(tmp_path / "timm", "timm", student, pixels, FACTS)
    card = (tmp_path / "timm" / "README.md").read_text()
    lines = card.partition("from safetensors.torch import load_file")[2].partition("```")[0]
    model = timm_format.read_timm(tmp_path / "timm" / "model.safetensors", student.card)
    known: dict[str, Any] = {"load_file": load_file, "linear": linear, "normalize": normalize}
    known |= {"model": model, "images": network_input(student, pixels)}
    code = lines.partition("normalize\n")[2].replace("FOLDER", str(tmp_path / "timm"))
    exec(code, known)  # the four lines that the card tells
    np.testing.assert_allclose(known["probabilities"].numpy(), own(student, pixels), atol=1e-5)


@torch.no_grad()
def test_the_length_of_embeddings_does_not_matter(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """The student divides by it, so it may be of any order, and the folded classifier is as near as before."""
    found = []
    for factor in (1, 1e-6):
        student = bundle()
        for parameter in student.classifier.student.projection.parameters():
            parameter.mul_(factor)
        found.append(write_export(tmp_path / str(factor), "timm", student, pixels, FACTS).largest)
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@torch.no_grad()
def test_a_hub_folder_has_labels_preprocessing_and_a_card(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    student = bundle(text=False)
    folder = tmp_path / "hf"
    write_export(folder, "hf", student, pixels, FACTS)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "labels.txt", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == (TINY_VIT.architecture, 3)
    assert config["label_names"] == list(CLASSES) == (folder / "labels.txt").read_text().splitlines()
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)).save(path)
    view = render_view(load_rgb(path), canonical_view(), SIZE)
    torch.testing.assert_close(transform(load_rgb(path)), network_input(student, view[None])[0], rtol=0, atol=1e-6)
    found = model(network_input(student, pixels)).softmax(-1).numpy()
    np.testing.assert_allclose(found, own(student, pixels), atol=1e-5)


@torch.no_grad()
def test_a_convolutional_student_whose_head_has_another_name_is_folded_too(
    tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    """It takes no input size as an argument, and has a layer between its pooled features and its classifier."""
    spec = replace(TINY_VIT, architecture="mobilenetv3_small_050", arguments={}, features=1024)
    student = bundle()
    classifier = new_classifier(spec, text_head(), class_count=3, seed=0)
    student = StudentBundle(classifier, replace(student.card, student=spec))
    write_export(tmp_path / "hf", "hf", student, pixels, FACTS)
    assert load_file(tmp_path / "hf" / "model.safetensors")["classifier.weight"].shape == (3, 1024)
    model = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True).eval()
    assert same_class(model(network_input(student, pixels)).numpy(), own(student, pixels))


def test_names_of_a_stranger_are_no_markup_in_the_card(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    student = bundle(text=False)
    hostile = replace(
        student.card, class_names=("[red](http://192.0.2.1)", "<img src=x>", "blue"), teacher={"id": "*a*\n---"}
    )
    write_export(tmp_path / "timm", "timm", StudentBundle(student.classifier, hostile), pixels, FACTS)
    card = (tmp_path / "timm" / "README.md").read_text()
    assert r"0. \[red\](http://192.0.2.1)" in card
    assert r"1. \<img src=x\>" in card
    assert r"| teacher | \*a\*\\n--- |" in card


def test_the_card_says_what_it_was_made_of_and_how_good_it_is(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    write_export(tmp_path / "hf", "hf", bundle(), pixels, replace(FACTS, dataset="a | <b>"))
    card = (tmp_path / "hf" / "README.md").read_text()
    assert card.startswith("---\ntags:\n- image-classification\n- timm\nlibrary_name: timm\nlicense: other\n---\n")
    for words in (
        "3 classes, vit_tiny_patch16_224 at 32 pixels",
        r"| data | a \| \<b\> |",
        "| source domains | art, photo |",
        "| teacher | tiny-clip |",
        "| queries bought | 24 images, 3 texts |",
        "- hold-out of the source domains (mean): 75.0 %",
        "- unseen domain: 50.0 %",
        f"on {len(pixels):,} images (drawn images): the same class for each",
        "No licence is given",
        "resized to 32 x 32 pixels, without keeping its proportions",
        "cosine_head.safetensors",
    ):
        assert words in card, words


def test_the_students_own_format_is_the_student(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    student = bundle()
    student = replace(student, card=replace(student.card, student=replace(TINY_VIT, tag="augreg_in21k")))
    write_export(tmp_path / "first", "vl2v", student, pixels, FACTS)
    again = load_bundle(tmp_path / "first")
    write_export(tmp_path / "second", "vl2v", again, pixels, FACTS)
    first, second = ((tmp_path / name / "student.json").read_text() for name in ("first", "second"))
    assert first == second
    assert json.loads(second)["student"]["initial_weights"] == "augreg_in21k"
    assert np.array_equal(own(load_bundle(tmp_path / "second"), pixels), own(student, pixels))


@needs_onnx
@pytest.mark.parametrize(("text", "view_size"), [(True, SIZE), (False, SIZE), (True, 48)])
@pytest.mark.filterwarnings("ignore")
def test_onnx_has_the_same_probabilities_whatever_the_batch(tmp_path: Path, text: bool, view_size: int) -> None:
    import onnxruntime

    student, views = bundle(text=text, view_size=view_size), drawn(view_size)
    agreement = write_export(tmp_path / "onnx", "onnx", student, views, FACTS)
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"student.onnx", "labels.txt", "README.md"}
    assert agreement.largest < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "student.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == list(CLASSES)
    assert (facts["size"], float(facts["temperature"])) == (str(view_size), 0.7)
    assert "without keeping" in facts["preprocessing"]
    logits, wanted = student.classifier.logits(views), own(student, views)
    for count in (1, 2, len(views)):
        found_logits, found = session.run(["logits", "probabilities"], {"pixels": views[:count]})
        np.testing.assert_allclose(found_logits, logits[:count], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found, wanted[:count], atol=1e-4, rtol=0)
    assert same_class(found, wanted)


def test_without_its_packages_onnx_names_what_to_install(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"the package onnx is not installed, of the extra `onnx`: pip install"):
        write_export(tmp_path / "onnx", "onnx", bundle(), pixels, FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format_", "text"), [("timm", False), ("timm", True), ("hf", False)])
def test_an_export_that_answers_otherwise_leaves_nothing_behind(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, format_: ExportFormat, text: bool
) -> None:
    read: Callable[..., Any] = timm_format.read_timm

    @torch.no_grad()
    def damaged(*given: Any) -> Any:
        model = read(*given)
        model.head.bias.copy_(model.head.bias - 100 * torch.arange(3))
        return model

    monkeypatch.setattr(timm_format, "read_timm", damaged)
    with pytest.raises(RunError, match=r"model\.safetensors does not answer as the student does: another class for"):
        write_export(tmp_path / "out", format_, bundle(text=text), pixels, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_formats_own_library_is_named_and_leaves_nothing(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise TypeError("an argument that\nnobody takes")

    monkeypatch.setattr(timm_format, "read_timm", fail)
    with pytest.raises(RunError, match=r"cannot be exported as timm \(an argument that\): choose another format"):
        write_export(tmp_path / "out", "timm", bundle(), pixels, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_has_no_name_yet(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        assert [path.name.startswith(".out.partial-") for path in tmp_path.iterdir()] == [True]
        raise KeyboardInterrupt

    monkeypatch.setattr(student_export, "model_card", killed)
    with pytest.raises(KeyboardInterrupt):
        write_export(tmp_path / "out", "vl2v", bundle(), pixels, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_alone(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_export(out, "vl2v", bundle(), pixels, FACTS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for there in (out, out / "README.md"):
        with pytest.raises(UsageError, match="exists already: remove it"):
            write_export(there, "timm", bundle(), pixels, FACTS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(TINY_VIT, tower={"embed_dim": 16}), "an open_clip image tower"),
        (replace(TINY_VIT, architecture="deit_tiny_distilled_patch16_224"), "does not end in one linear layer"),
    ],
)
def test_a_student_that_timm_cannot_hold_is_refused_with_the_formats_that_can(
    tmp_path: Path, pixels: NDArray[np.uint8], spec: Any, words: str
) -> None:
    student = bundle()
    student = replace(student, card=replace(student.card, student=spec))
    with pytest.raises(UsageError, match=rf"{words}.* export .*as onnx or vl2v"):
        write_export(tmp_path / "timm", "timm", student, pixels, FACTS)
    assert list(tmp_path.iterdir()) == []
