"""The first blocks stay frozen: the cut changes no output, what is frozen no bit, and what is kept only the time."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from support.client.student_factories import CLASSES, SIZE, coloured_views, fresh_classifier, text_head, training_data
from vl2v_client.cache.feature_store import FeatureStore
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.runs.settings import settle
from vl2v_client.student.loss.methods import METHODS, TrainingConfig, check_effects, vl2v_adip
from vl2v_client.student.model import network
from vl2v_client.student.model.card import InputFormat
from vl2v_client.student.model.classifier import new_classifier
from vl2v_client.student.model.network import build_backbone, check_cut, cut_backbone, frozen_names, half_of
from vl2v_client.student.model.spec import StudentSpec, resolve_student
from vl2v_client.student.train import feeds
from vl2v_client.student.train.feeds import FeatureFeed, open_feed
from vl2v_client.student.train.frozen_features import Activations, FrozenFeatures
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.stage_state import StageState
from vl2v_client.student.train.training_data import BatchSource, TrainingData
from vl2v_client.student.train.training_run import TrainingRun

FORMAT = InputFormat(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
CONVOLUTIONAL = StudentSpec("test_efficientnet", FORMAT, 256)
CONFIG = TrainingConfig(
    align_steps=3,
    distill_steps=9,
    distill_learning_rate=1e-2,
    batch_size=4,
    evaluate_every=3,
    freeze_until=2,
    device="cpu",
)


def _backbone(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **arguments).eval()


def _images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "size", "blocks", "arguments"),
    [
        ("vit_tiny_patch16_224", 32, 4, {"img_size": 32, "depth": 3}),
        ("vit_tiny_patch16_224", 32, 3, {"img_size": 32, "depth": 2, "class_token": False, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", 32, 3, {"img_size": 32, "depth": 2}),
        ("tf_efficientnet_lite0", 64, 8, {}),
        ("mobilenetv3_small_050", 64, 7, {}),  # its last block is the one after the pool, which no cut comes before
        ("resnet18", 64, 5, {}),
        ("test_convnext", 64, 6, {}),
    ],
)
def test_the_two_parts_are_the_whole(name: str, size: int, blocks: int, arguments: Mapping[str, Any]) -> None:
    backbone, images = _backbone(name, **arguments), _images(size)
    whole = backbone(images)
    for count in range(1, blocks):
        lower, upper = cut_backbone(backbone, count)
        assert torch.equal(upper(lower(images)), whole), count
        frozen = frozen_names(backbone, count)
        assert frozen > frozen_names(backbone, count - 1)
        assert not set(frozen) & {path for path, value in upper.named_parameters() if path not in frozen}
    trained = dict(upper.named_parameters())
    assert all(value is trained[path] for path, value in backbone.named_parameters() if path in trained)


def test_half_precision_moves_the_features_by_less_than_a_thousandth() -> None:
    spec = resolve_student("tiny")
    backbone, images = build_backbone(spec).eval(), _images(spec.input.size)
    whole = backbone(images)
    for count in range(1, 5):
        lower, upper = cut_backbone(backbone, count)
        moved = (upper(lower(images).half().float()) - whole).norm(dim=1) / whole.norm(dim=1)
        assert 0 < moved.max() < 1e-3


def test_a_student_that_cannot_be_cut_is_refused_by_name() -> None:
    tiny = resolve_student("tiny", size=32)
    check_cut("tiny", tiny, 4)
    with pytest.raises(UsageError, match=r"freeze_until 5: 'tiny' has 5 blocks, the stem included.*choose at most 4"):
        check_cut("tiny", tiny, 5)
    cait = StudentSpec("cait_xxs24_224", FORMAT, 192, {"img_size": SIZE, "depth": 2})
    for spec in (cait, replace(CONVOLUTIONAL, architecture="poolformer_s12"), replace(CONVOLUTIONAL, tower={})):
        with pytest.raises(UsageError, match="freeze_until 1: 'mine' cannot be cut there: leave the option out"):
            check_cut("mine", spec, 1)
    assert (half_of(tiny), half_of(cait)) == (2, 0)


def test_a_cut_that_loses_something_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_cut("mine", CONVOLUTIONAL, 2)
    whole = network.cut_backbone

    def lossy(backbone: nn.Module, count: int) -> tuple[nn.Module, nn.Module]:
        lower, upper = whole(backbone, count)
        return nn.Sequential(lower, nn.ReLU()), upper

    monkeypatch.setattr(network, "cut_backbone", lossy)
    with pytest.raises(UsageError, match="cannot be cut there"):
        check_cut("mine", CONVOLUTIONAL, 2)


def test_a_run_is_refused_before_its_teacher_is_asked(tmp_path: Any) -> None:
    tree = {"data": {"root": tmp_path}, "student": {"name": "tiny"}, "training": {"freeze_until": 5}}
    with pytest.raises(UsageError, match="'tiny' has 5 blocks"):
        settle(RunConfig.model_validate(tree))


def test_it_is_refused_where_no_backbone_trains() -> None:
    with pytest.raises(UsageError, match=r"training\.freeze_until changes nothing in linear-probe"):
        check_effects(["linear-probe"], {"freeze_until": 1})
    check_effects(["erm", "linear-probe"], {"freeze_until": 1})
    assert [stage.freeze_until for stage in METHODS["vl2v-adip"](CONFIG).stages] == [0, 2]


def _run(config: TrainingConfig) -> TrainingRun:
    classifier = new_classifier(CONVOLUTIONAL, text_head(), class_count=len(CLASSES), seed=0)
    return TrainingRun(classifier, training_data(), config)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
@pytest.mark.parametrize("room", [1.0, 0.5, 0.0])
def test_frozen_blocks_say_the_same_kept_or_not(monkeypatch: pytest.MonkeyPatch, mixup: float, room: float) -> None:
    run = _run(CONFIG.replace(mixup=mixup))
    stage = vl2v_adip(run.config).stages[1]
    whole = open_feed(run, replace(stage, freeze_until=0))
    lower, _ = cut_backbone(run.classifier.student.backbone, 2)
    each = lower.eval()(torch.zeros(1, 3, SIZE, SIZE)).numel() * 2
    monkeypatch.setattr(feeds, "FEATURE_BYTES", int(room * each * (48 + len(run.data.validation))))
    seen: list[int] = []
    feed = open_feed(run, stage, lambda _phase, _done, total, *_extras: seen.append(total))
    assert set(seen) == ({int(room * (48 + len(run.data.validation)))} if room else set())
    run.classifier.student.train()
    rendered = 0
    for step in range(3):
        loaded = feed.load(step)
        rendered += len(loaded.inputs)
        if mixup == 0:  # otherwise the activations are blended, and not the views
            torch.testing.assert_close(feed.outputs(loaded), whole.outputs(whole.load(step)), rtol=2e-3, atol=2e-3)
        else:
            assert loaded.mix is not None
            own, others = (lower(_views(run, rows, views)) for rows, views in _pairs(loaded))
            _, upper = cut_backbone(run.classifier.student.backbone, 2)
            expected = run.classifier.student.projection(upper(loaded.mix.blend(own, others)))
            torch.testing.assert_close(feed.outputs(loaded), expected, rtol=2e-3, atol=2e-3)
    looks = 3 * 8 * (2 if mixup else 1)
    assert rendered == 0 if room == 1 else rendered == looks if room == 0 else 0 < rendered < looks
    run.classifier.student.eval()
    torch.testing.assert_close(feed.validation_outputs(), whole.validation_outputs(), rtol=2e-3, atol=2e-3)


def _pairs(loaded: Any) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return [(loaded.rows, loaded.views), (loaded.mix.rows, loaded.mix.views)]


def _views(run: TrainingRun, rows: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
    return run.inputs(run.prepared(run.data.train.pixels[rows, views]))


@pytest.mark.parametrize(
    ("room", "is_stored", "noted"), [(1.0, False, 60), (1.0, True, 36), (0.5, False, 28), (0.0, False, 0)]
)
def test_frozen_blocks_need_not_see_again_what_they_saw_for_the_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: float, is_stored: bool, noted: int
) -> None:
    config = CONFIG.replace(align="ridge", evaluation_batch_size=8)
    classifier, data, store = _run(config).classifier, training_data(), FeatureStore(tmp_path / "features.db")
    train_views, held_out = (
        replace(views, keys=[bytes([first + place]) for place in range(len(views) * views.view_count)])
        for first, views in ((0, data.train), (100, data.validation))
    )
    data = replace(data, train=train_views, validation=held_out)
    align, distill = vl2v_adip(config).stages
    if is_stored:  # of each image's first view
        [*FrozenFeatures(classifier, config, store).parts(train_views.first(), train_views.first_keys())]
    features = torch.cat([*FrozenFeatures(classifier, config, None).parts(train_views.first(2), train_views.keys)])
    lower, _ = cut_backbone(classifier.student.backbone, 2)
    each = lower.eval()(torch.zeros(1, 3, SIZE, SIZE)).numel() * 2
    activations = Activations(2, int(room * 60 * each))
    noting = replace(data, features=store if is_stored else None, activations=activations)
    pairs = [*cast(FeatureFeed, open_feed(TrainingRun(classifier, noting, config), align)).pairs(_batches(data))]
    assert torch.equal(torch.cat([x for x, _ in pairs]), features.float()), "the same bits on the way"
    assert len(activations) == noted

    seen: list[int] = []
    see = FeatureFeed._seen

    def counted(self: FeatureFeed, pixels: NDArray[np.uint8]) -> Tensor:
        seen.append(len(pixels))
        return see(self, pixels)

    plain = open_feed(TrainingRun(classifier, data, config), distill)
    monkeypatch.setattr(FeatureFeed, "_seen", counted)
    again = open_feed(TrainingRun(classifier, noting, config), distill)
    assert sum(seen) == 1 + 60 - noted
    for step in range(3):
        assert torch.equal(again.outputs(again.load(step)), plain.outputs(plain.load(step)))
    assert torch.equal(again.validation_outputs(), plain.validation_outputs())
    assert len(activations) == 0
    activations.put([b"of another method"], torch.zeros(1, 1))
    train(METHODS["linear-probe"](config), classifier, noting, config)
    assert len(activations) == 0, "nothing is left behind"
    store.close()


def _batches(data: TrainingData) -> BatchSource:
    return BatchSource(data, text_head(), 0.5)


@pytest.mark.parametrize("name", ["vl2v-adip", "erm", "adip-joint", "kd"])
@pytest.mark.parametrize("kept_bytes", [2**30, 0])
def test_what_is_frozen_does_not_move_by_a_bit(monkeypatch: pytest.MonkeyPatch, name: str, kept_bytes: int) -> None:
    monkeypatch.setattr(feeds, "FEATURE_BYTES", kept_bytes)
    method = METHODS[name](CONFIG)
    head = text_head() if method.head == "text" else None
    classifier = new_classifier(CONVOLUTIONAL, head, class_count=len(CLASSES), seed=0)
    before = {path: value.clone() for path, value in classifier.student.state_dict().items()}
    train(method, classifier, replace(training_data(), teacher_head=text_head()), CONFIG)
    after = classifier.student.state_dict()
    moved = {path for path, value in after.items() if not torch.equal(value, before[path])}
    frozen = {f"backbone.{path}" for path in frozen_names(classifier.student.backbone, 2)}
    trained = {path for path, _ in classifier.student.named_parameters() if path.startswith("backbone.")} - frozen
    assert frozen
    assert trained <= moved
    assert {path for path in moved if path.startswith("backbone.")} <= trained  # nor do BatchNorm's statistics


class _Fresh:
    """Online training, without a teacher: the stored views, mirrored."""

    of = "mirrored"

    def draw(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], size: int, *, ask: bool
    ) -> tuple[NDArray[np.uint8], EmbeddingMatrix | None]:
        return np.ascontiguousarray(coloured_views(12, seed=1).pixels[rows, views % 2, :, ::-1]), None


def test_fresh_views_pass_frozen_blocks_in_evaluation_mode() -> None:
    run = _run(CONFIG)
    run = replace(run, data=replace(run.data, targets=None, fresh=_Fresh()))
    stage = vl2v_adip(CONFIG).stages[1]
    StageState(stage, run.classifier.student, CONFIG)
    feed, student = open_feed(run, stage), run.classifier.student
    student.train()
    feed.outputs(feed.load(0)).sum().backward()
    backbone, frozen = student.backbone, frozen_names(student.backbone, 2)
    assert all((value.grad is None) == (path in frozen) for path, value in backbone.named_parameters())
    assert not any(module.training for path, module in backbone.named_modules() if path.startswith("blocks.0"))
    assert backbone.get_submodule("blocks.2").training


def _rates(**changes: Any) -> list[float]:
    config = TrainingConfig(distill_steps=10, distill_learning_rate=1e-2, device="cpu", **changes)
    state, rates = StageState(vl2v_adip(config).stages[1], fresh_classifier().student, config), []
    for state.step in range(10):
        state.descend()
        rates.append(state.optimizer.param_groups[-1]["lr"])
    return rates


def test_the_learning_rate_rises_and_falls_as_the_schedule_says() -> None:
    assert _rates() == [1e-2] * 10
    assert _rates(warmup=0.3) == pytest.approx([1e-2 / 3, 2e-2 / 3, *[1e-2] * 8])
    assert _rates(schedule="cosine") == pytest.approx([5e-3 * (1 + math.cos(math.pi * t / 10)) for t in range(10)])
    both = _rates(schedule="cosine", warmup=0.2, optimizer="adamw")
    assert both == pytest.approx([5e-3, 1e-2, *(5e-3 * (1 + math.cos(math.pi * t / 8)) for t in range(8))])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adamw_decays_weights_alone_and_apart_from_the_gradient(optimizer: str) -> None:
    config = TrainingConfig(weight_decay=0.1, distill_learning_rate=0.5, optimizer=optimizer, device="cpu")  # type: ignore[arg-type]
    student = fresh_classifier().student
    state = StageState(vl2v_adip(config).stages[1], student, config)
    before = {name: value.detach().clone() for name, value in state.weights.items()}
    for value in state.weights.values():
        value.grad = torch.zeros_like(value)
    state.descend()
    for name, value in state.weights.items():
        if optimizer == "adamw":  # without a gradient, only the decay moves
            factor = 1 - 0.5 * 0.1 if value.ndim > 1 else 1.0
            torch.testing.assert_close(value.detach(), factor * before[name])
        else:  # the decay is a part of the gradient, which Adam scales to the length of the learning rate
            moved = (value.detach() - before[name])[before[name].abs() > 1e-3].abs()
            torch.testing.assert_close(moved, torch.full_like(moved, 0.5), rtol=1e-3, atol=0)
