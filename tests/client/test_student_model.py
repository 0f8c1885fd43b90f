"""Students: where their weights come from, what they are fed, and which views a step sees."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from support.client.student_factories import SIZE, TINY_VIT, WIDTH, fresh_classifier
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.student.model.card import InputFormat, StudentEntry, read_entry
from vl2v_client.student.model.classifier import student_input
from vl2v_client.student.model.network import Student, build_backbone, build_student
from vl2v_client.student.model.spec import StudentSpec, resolve_student
from vl2v_client.student.train.training_run import rows_by_domain, sample_batch

CPU = torch.device("cpu")
NAME = "resnet10t"  # a small timm model with BatchNorm, 224 pixels


def _saved(path: Path, *, drop: str = "nothing", more: dict[str, torch.Tensor] | None = None) -> Path:
    torch.manual_seed(1)
    weights = build_backbone(resolve_student(NAME), pretrained=False).state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith(drop)}
    save_file({**kept, **(more or {})}, path)
    return path


def test_a_local_file_is_loaded_and_its_classifier_ignored(tmp_path: Path) -> None:
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = _saved(tmp_path / "w.safetensors", more=classifier)
    spec = resolve_student(NAME, weights=path, size=64)
    assert (spec.input.size, spec.features, spec.tag) == (64, 512, None)
    student = build_student(spec, outputs=WIDTH, seed=0)
    stored = load_file(path)
    assert all(torch.equal(value, stored[name]) for name, value in student.backbone.state_dict().items())
    assert student(torch.zeros(2, 3, 64, 64)).shape == (2, WIDTH)


def test_a_file_without_backbone_weights_is_refused_by_their_names(tmp_path: Path) -> None:
    spec = resolve_student(NAME, weights=_saved(tmp_path / "w.safetensors", drop="layer4.0.conv2"))
    with pytest.raises(DataError, match=r"w\.safetensors lacks 1 of the \d+ weights .* as layer4\.0\.conv2\.weight"):
        build_backbone(spec)


def test_a_file_of_another_model_or_no_safetensors_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(build_backbone(TINY_VIT).state_dict(), other)
    (tmp_path / "text.safetensors").write_bytes(b"not weights at all, but long enough to be read")
    for path in (other, tmp_path / "text.safetensors"):
        with pytest.raises(DataError, match=path.name):
            build_backbone(resolve_student(NAME, weights=path))
    with pytest.raises(DataError, match="cannot be read"):
        resolve_student(NAME, weights=tmp_path / "nowhere")


def test_position_embeddings_are_resampled_to_another_size(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    save_file(build_backbone(resolve_student(name), pretrained=False).state_dict(), tmp_path / "w.safetensors")
    spec = resolve_student(name, weights=tmp_path / "w.safetensors", size=96)
    assert spec.arguments == {"img_size": 96}
    assert build_backbone(spec).eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 192)


def test_each_student_keeps_the_normalisation_it_was_trained_with() -> None:
    assert resolve_student("vit_small_patch16_224").input.mean == (0.5, 0.5, 0.5)
    assert resolve_student("deit_small_patch16_224").input.mean == (0.485, 0.456, 0.406)
    tagged = resolve_student("vit_base_patch16_224.augreg_in21k_ft_in1k")
    assert (tagged.architecture, tagged.tag) == ("vit_base_patch16_224", "augreg_in21k_ft_in1k")


def test_unknown_students_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no model 'vit_smal': did you mean vit_small"):
        resolve_student("vit_smal")
    with pytest.raises(UsageError, match=r"no pretrained model .*; it has: .*augreg"):
        resolve_student("vit_small_patch16_224.best")
    with pytest.raises(UsageError, match="brings its own weights"):
        resolve_student("tiny", weights=Path("w.safetensors"))


def _meta_device_checks_sizes() -> bool:
    try:
        torch.nn.Conv2d(3, 1, 32, stride=32, device="meta")(torch.empty(1, 3, 16, 16, device="meta"))
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize(("name", "size"), [("convnext_atto", 16), ("vit_small_patch32_224", 16), ("halonet26t", 96)])
def test_a_student_that_cannot_look_at_pictures_of_this_size_is_refused(name: str, size: int) -> None:
    if name != "halonet26t" and not _meta_device_checks_sizes():
        pytest.skip("the meta device of this torch takes an empty picture; `distill` shows the student images")
    with pytest.raises(UsageError, match=f"{name}.* at {size} pixels"):
        resolve_student(name, size=size)


def test_a_student_whose_features_are_not_one_row_a_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.models.VisionTransformer, "forward_head", lambda _self, tokens, **_: tokens)
    with pytest.raises(UsageError, match=r"features of shape \(1, 197, 384\), not \(1, 384\)"):
        resolve_student("vit_small_patch16_224")


def test_the_student_that_ships_is_loaded_at_its_size_or_another() -> None:
    spec = resolve_student("tiny")
    image = torch.zeros(1, 3, spec.input.size, spec.input.size)
    assert build_student(spec, outputs=3, seed=0).eval()(image).shape == (1, 3)
    smaller = resolve_student("tiny", size=32)
    assert build_backbone(smaller).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, smaller.features)


def test_a_spec_survives_its_card() -> None:
    again = StudentSpec.from_entry(read_entry(StudentEntry, json.dumps(TINY_VIT.to_json())))
    assert again == TINY_VIT


def test_first_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, two, other = (fresh_classifier(seed=seed).student.projection.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_batch_norm_stays_in_evaluation_while_the_student_trains() -> None:
    student = Student(build_backbone(resolve_student(NAME), pretrained=False), torch.nn.Linear(512, 4)).train()
    assert student.training
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    student(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(torch.equal(value, statistics[name]) for name, value in student.named_buffers())


def test_input_is_scaled_and_normalised_with_the_student_s_own_numbers() -> None:
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    pixels[1] = 255
    wanted = InputFormat(4, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), "bicubic")
    inputs = student_input(pixels, wanted, CPU)
    assert inputs.shape == (2, 3, 4, 4)
    assert inputs[:, :, 0, 0].tolist() == [[-1, -1, 0], [1, 3, 1]]


@pytest.mark.parametrize("size", [8, 32])
def test_another_size_is_resized_without_leaving_the_range(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (1, 16, 16, 3), dtype=np.uint8) * 255
    inputs = student_input(pixels, InputFormat(size, (0, 0, 0), (1, 1, 1), "bicubic"), CPU, channels_last=True)
    assert inputs.shape == (1, 3, size, size)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_balanced_and_a_function_of_seed_stage_and_step() -> None:
    rows = rows_by_domain(["photo"] * 3 + ["art"] * 50)
    assert [len(of_one) for of_one in rows] == [50, 3]

    def draw(seed: int = 0, stage: str = "align", step: int = 0) -> list[list[int]]:
        chosen, views = sample_batch(rows, views=4, batch_size=8, seed=seed, stage=stage, step=step)
        return [chosen.tolist(), views.tolist()]

    chosen, views = draw()
    assert all(row >= 3 for row in chosen[:8])
    assert all(row < 3 for row in chosen[8:])
    assert set(views) <= {0, 1, 2, 3}
    assert draw() == draw()
    others = [draw(), draw(seed=1), draw(stage="distill"), draw(step=1)]
    assert all(left != right for left, right in combinations(others, 2))


def test_all_rows_and_views_are_seen_in_time() -> None:
    rows = rows_by_domain(["a"] * 5)
    seen = {
        pair
        for step in range(40)
        for pair in zip(*sample_batch(rows, views=3, batch_size=4, seed=0, stage="s", step=step), strict=True)
    }
    assert len(seen) == 15


def test_the_student_s_outputs_have_the_teacher_s_width() -> None:
    classifier = fresh_classifier()
    assert classifier.student(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, WIDTH)
    assert classifier.student.features(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 32)
