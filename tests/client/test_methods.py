"""The methods as data: what each stage moves, reads and leaves, and that all of them resume to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from support.client.student_factories import coloured_views, fresh_classifier, text_head, training_data
from vl2v_client.config.training import Align
from vl2v_client.student.loss.methods import (
    METHODS,
    BestOfEquals,
    Method,
    Stage,
    TrainingConfig,
    asks_about_images,
    asks_about_texts,
    erm,
    vl2v_adip,
)
from vl2v_client.student.loss.objective import OBJECTIVES
from vl2v_client.student.model.classifier import student_input
from vl2v_client.student.model.network import Student
from vl2v_client.student.train.averages import WISE_FT_GRID, between
from vl2v_client.student.train.closed_form import PENALTIES
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import SourceScore, TrainingResult, choose_interpolation
from vl2v_client.student.train.stage_state import StageState
from vl2v_client.student.train.training_data import TrainingData

QUICK = TrainingConfig(
    align_steps=3,
    distill_steps=4,
    align_learning_rate=1e-2,
    distill_learning_rate=1e-3,
    batch_size=4,
    evaluate_every=2,
    checkpoint_every=2,
    device="cpu",
)
STAGES = [(name, stage) for name, make in METHODS.items() for stage in make(QUICK).stages]
TRAINS = {
    "vl2v-adip": ("projection", "backbone"),
    "vl2v-sd": ("backbone+projection",),
    "erm": ("backbone+projection",),
    "linear-probe": ("projection",),
    "lp-ft": ("projection", "backbone+projection"),
    "text-head": ("projection", "backbone+projection"),
    "vl2lite": ("backbone+projection",),
    "kd": ("backbone+projection",),
    "image-cosine": ("projection", "backbone"),
    "text-cosine": ("projection", "backbone"),
    "rise-relative": ("projection", "backbone"),
    "feature-mse": ("projection", "backbone"),
    "simkd": ("backbone+projection",),
    "adip-no-align": ("backbone",),
    "adip-align-only": ("projection",),
    "adip-joint": ("backbone+projection",),
}
NEED_NO_IMAGE = {"erm", "linear-probe", "lp-ft", "text-head", "text-cosine", "rise-relative"}
NEED_NO_TEXT = {"erm", "linear-probe", "lp-ft"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _data() -> TrainingData:
    return replace(training_data(), teacher_head=text_head())


def _run(method: Method, config: TrainingConfig, folder: Path | None = None, **options: object) -> TrainingResult:
    classifier = fresh_classifier(text=method.head == "text")
    return train(method, classifier, _data(), config, folder=folder, **options)


def _weights(result: TrainingResult) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in result.classifier.student.state_dict().items()}


def _equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[f"{name}-{stage.name}" for name, stage in STAGES])
def test_each_stage_of_each_method_moves_its_parts_and_no_bit_of_the_others(name: str, stage: Stage) -> None:
    method = replace(METHODS[name](QUICK), stages=(replace(stage, final_weights="last"),))
    before = fresh_classifier(text=method.head == "text").student.state_dict()
    after = _weights(_run(method, QUICK))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.partition(".")[0] in stage.trains}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_known_objectives_and_takes_as_many_steps_as_the_others(name: str) -> None:
    method = METHODS[name](QUICK)
    assert {stage.objective for stage in method.stages} <= OBJECTIVES.keys()
    published = QUICK.distill_steps if name == "vl2v-sd" else QUICK.align_steps + QUICK.distill_steps
    assert sum(stage.steps for stage in method.stages) == published
    assert tuple("+".join(stage.trains) for stage in method.stages) == TRAINS[name]
    assert method.white_box == (name == "vl2v-sd")


def test_method_names_are_unique_in_reports_and_in_run_folders() -> None:
    assert len({make(QUICK).name for make in METHODS.values()}) == len(METHODS)
    for make in METHODS.values():
        names = [stage.name for stage in make(QUICK).stages]
        assert len(set(names)) == len(names)


def test_which_methods_ask_about_images_and_texts() -> None:
    assert {name for name, make in METHODS.items() if not asks_about_images(make(QUICK), QUICK)} == NEED_NO_IMAGE
    weightless = QUICK.replace(image_weight=0.0)
    assert not asks_about_images(METHODS["vl2v-adip"](weightless), weightless)
    assert {name for name, make in METHODS.items() if not asks_about_texts(make(QUICK))} == NEED_NO_TEXT


@pytest.mark.parametrize("name", sorted(NEED_NO_IMAGE))
def test_a_method_that_needs_no_image_reads_none(name: str) -> None:
    data = _data()
    assert data.targets is not None
    unasked = replace(data.targets, vectors=data.targets.vectors * 0, weights=data.targets.weights * 0)
    method = METHODS[name](QUICK)
    classifier = fresh_classifier(text=method.head == "text")
    result = train(method, classifier, replace(data, targets=unasked), QUICK)
    assert _equal(_weights(result), _weights(_run(method, QUICK)))


def test_kd_is_not_erm_once_the_teacher_was_asked_and_is_erm_else() -> None:
    kd, data = METHODS["kd"](QUICK), _data()
    assert data.targets is not None
    labels = replace(erm(QUICK).stages[0], name=kd.stages[0].name)
    alone = _weights(_run(Method("labels", "linear", (labels,)), QUICK))
    assert not _equal(_weights(_run(kd, QUICK)), alone)
    unasked = replace(data, targets=replace(data.targets, weights=data.targets.weights * 0))
    found = _weights(train(kd, fresh_classifier(text=False), unasked, QUICK))
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("erm", "vl2v-adip", "vl2v-sd")])
def test_every_method_learns_a_toy_problem(name: str) -> None:
    config = QUICK.replace(align_steps=60, distill_steps=60, evaluate_every=10, distill_learning_rate=3e-3)
    unseen = coloured_views(30, views=1, domains=("sketch",), seed=9)
    right = _run(METHODS[name](config), config).classifier.logits(unseen.pixels[:, 0]).argmax(axis=1) == unseen.labels
    assert right.mean() > 0.8, right.mean()


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    "settings",
    [{"final_weights": "ema"}, {"distill_segments": "cumulative"}, {"interpolate": True}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_killed_run_ends_with_the_same_bits_whatever_it_averages(tmp_path: Path, settings: dict[str, object]) -> None:
    config = QUICK.replace(distill_steps=7, **settings)
    method = METHODS["kd"](config)
    undisturbed = _run(method, config)

    def kill(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if done == 7:
            raise _Killed

    with pytest.raises(_Killed):
        _run(method, config, tmp_path, progress=kill)
    resumed = _run(method, config, tmp_path)
    assert _equal(_weights(resumed), _weights(undisturbed))
    assert resumed.interpolation == undisturbed.interpolation


@pytest.mark.parametrize("name", ["lp-ft", "text-head"])
@pytest.mark.parametrize("align", ["adam", "ridge"])
def test_fine_tuning_starts_from_what_the_probe_leaves(name: str, align: Align) -> None:
    config = QUICK.replace(align=align, distill_steps=1, final_weights="last", distill_learning_rate=1e-12)
    method = METHODS[name](config)
    assert [stage.final_weights for stage in method.stages] == ["best", "last"]
    first = fresh_classifier(text=method.head == "text").student.state_dict()
    probe = _weights(_run(replace(method, stages=method.stages[:1]), config))
    assert {key for key in first if not torch.equal(first[key], probe[key])} == {"projection.weight", "projection.bias"}
    for key, value in _weights(_run(method, config)).items():
        torch.testing.assert_close(value, probe[key], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["lp-ft", "linear-probe"])
def test_a_probe_in_closed_form_is_the_ridge_regression_of_the_labels(name: str) -> None:
    config = QUICK.replace(align="ridge", align_steps=1, distill_steps=1, align_learning_rate=1e-30)
    stage = replace(METHODS[name](config).stages[0], final_weights="best")
    data, result = _data(), _run(Method("probe", "linear", (stage,)), config)
    student = result.classifier.student.eval()
    with torch.no_grad():
        pixels = student_input(np.stack(list(data.train.first(2))), result.classifier.input, torch.device("cpu"))
        features = student.features(pixels).half().double()  # as they are cached
    targets = 10 * torch.eye(3, dtype=torch.float64)[torch.from_numpy(data.train.labels.repeat(2))]
    centred, mean = features - features.mean(dim=0), features.mean(dim=0)
    gram, product = centred.T @ centred / len(features), centred.T @ targets / len(features)
    identity = torch.eye(len(gram), dtype=torch.float64)
    fits = [torch.linalg.solve(gram + penalty * gram.diagonal().mean() * identity, product) for penalty in PENALTIES]
    weight, bias = student.projection.weight.double(), student.projection.bias.double()
    found = [fit for fit in fits if torch.allclose(weight, fit.T, atol=1e-4)]
    assert len(found) == 1
    torch.testing.assert_close(bias, targets.mean(dim=0) - mean @ found[0], atol=1e-3, rtol=0)


def test_the_final_weights_of_a_stage_decide_the_result() -> None:
    config = QUICK.replace(distill_steps=30, evaluate_every=5)
    configs = [config.replace(final_weights=name) for name in ("swad", "ema", "last")]
    found = [_weights(_run(METHODS["kd"](one), config)) for one in configs]
    assert not any(_equal(one, other) for i, one in enumerate(found) for other in found[:i])


def test_weights_that_are_not_carried_anywhere_are_refused() -> None:
    with pytest.raises(ValidationError, match="'swad', 'ema', 'best' or 'last'"):
        TrainingConfig(final_weights="first")


def test_other_averages_than_the_valley_s_do_not_stop_when_it_is_dead() -> None:
    config = QUICK.replace(align_steps=1, distill_steps=29, evaluate_every=1, tolerance=1, converge=1)
    config = config.replace(tolerance_ratio=-0.9)  # dead as soon as it opens
    assert _run(METHODS["kd"](config), config).stages[0].steps < 30
    other = config.replace(final_weights="ema")
    assert _run(METHODS["kd"](other), other).stages[0].steps == 30


def test_early_evaluations_may_be_no_candidates_for_the_best() -> None:
    # no weight moves at this rate: all evaluations are equal, and the first is best
    still = QUICK.replace(align_steps=9, align_learning_rate=1e-30)

    def best_step(best_from: int) -> int:
        config = still.replace(distill_best_from=best_from)
        return _run(METHODS["adip-align-only"](config), config).stages[0].best_step

    assert [best_step(best_from) for best_from in (0, 2, 3, 10**6)] == [1, 3, 5, 13]
    still = still.replace(best_of_equals="last")
    assert [best_step(best_from) for best_from in (0, 3, 10**6)] == [13, 13, 13]


def test_the_published_best_is_the_last_of_equals_and_no_early_one_may_surpass_it() -> None:
    def best_step(accuracies: list[float], losses: list[float], rule: BestOfEquals, best_from: int = 0) -> int:
        config = QUICK.replace(align_steps=len(accuracies), best_of_equals=rule, align_best_from=best_from)
        stage = vl2v_adip(config).stages[0]
        state = StageState(stage, Student(torch.nn.Identity(), torch.nn.Linear(4, 4)), config)
        for accuracy, loss in zip(accuracies, losses, strict=True):
            state.add_step({"loss": torch.tensor(0.0), "floor": torch.tensor(0.0)})
            state.add_evaluation(SourceScore(accuracy, loss, {}))
        return state.best.step

    accuracies, losses = [0.9, 0.98, 0.98, 0.97], [0.3, 0.10, 0.11, 0.05]
    assert best_step(accuracies, losses, "lower_loss") == 2
    assert best_step(accuracies, losses, "last") == 3
    early, losses = [0.99, 0.98, 0.98, 0.97], [0.3, 0.10, 0.11, 0.05]
    assert best_step(early, losses, "lower_loss", best_from=1) == 2
    assert best_step(early, losses, "last", best_from=1) == 4  # none is left, so the last


def test_a_stage_that_ends_before_any_candidate_leaves_its_last_weights() -> None:
    config = QUICK.replace(align_steps=20, evaluate_every=1, tolerance=1, converge=1, tolerance_ratio=-0.9)
    config = config.replace(distill_best_from=10**6)
    (stage,) = _run(METHODS["adip-align-only"](config), config).stages
    assert stage.best_step == stage.steps < 24


def test_the_cumulative_segments_reach_back_to_the_first_step() -> None:
    config = QUICK.replace(distill_segments="cumulative")
    assert _run(METHODS["simkd"](config), config).stages[0].swad_steps[0] == 0
    assert _run(METHODS["simkd"](QUICK), QUICK).stages[0].swad_steps[0] > 0


def test_wise_ft_takes_the_place_between_both_ends_that_source_validation_likes() -> None:
    config = QUICK.replace(final_weights="last")
    first = fresh_classifier().student.state_dict()
    last = _weights(_run(METHODS["adip-joint"](config), config))
    result = _run(METHODS["adip-joint"](config.replace(interpolate=True)), config)
    assert result.interpolation in WISE_FT_GRID
    assert _equal(_weights(result), between(first, last, result.interpolation))
    scores = {share: SourceScore(0.5 + 0.1 * (share == 0.3), 1.0, {}) for share in WISE_FT_GRID}
    assert choose_interpolation(WISE_FT_GRID, scores.__getitem__) == 0.3
