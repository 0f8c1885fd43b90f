"""The loop: what moves, what resumes, what is repeated, and that learning happens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from support.client.student_factories import coloured_views, fresh_classifier, teacher_targets, training_data
from vl2v_client.core.errors import Diverged, RunError
from vl2v_client.student.loss.methods import Method, Stage, TrainingConfig, erm, online_queries, vl2v_adip
from vl2v_client.student.train.closed_form import PENALTIES, fit_projection
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import SourceScore, TrainingResult, choose_learning_rate
from vl2v_client.student.train.training_data import TrainingData

QUICK = TrainingConfig(
    align_steps=9,
    distill_steps=7,
    align_learning_rate=1e-2,
    distill_learning_rate=1e-3,
    batch_size=4,
    evaluate_every=3,
    checkpoint_every=2,
    device="cpu",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class FixedScore:
    """A run that nobody trained."""

    validation: SourceScore


def _weights(result: TrainingResult) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in result.classifier.student.state_dict().items()}


def _equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("part", ["backbone", "projection"])
def test_a_stage_moves_its_own_parts_and_no_bit_of_the_others(part: str) -> None:
    stage = next(stage for stage in vl2v_adip(QUICK).stages if stage.trains == (part,))
    classifier = fresh_classifier()
    before = {name: value.clone() for name, value in classifier.student.state_dict().items()}
    after = _weights(train(Method("one stage", "text", (stage,)), classifier, training_data(), QUICK))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(part)}


def test_two_runs_with_one_seed_agree_and_another_seed_does_not() -> None:
    def run(seed: int) -> dict[str, Tensor]:
        config = QUICK.replace(seed=seed)
        return _weights(train(vl2v_adip(config), fresh_classifier(), training_data(), config))

    assert _equal(run(0), run(0))
    assert not _equal(run(0), run(1))


class _Killed(Exception):
    pass


@pytest.mark.parametrize(("stage", "step"), [("align", 1), ("align", 5), ("align", 9), ("distill", 2), ("distill", 7)])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, stage: str, step: int) -> None:
    undisturbed = train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path / "a")

    def kill(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if (phase, done) == (stage, step):
            raise _Killed

    with pytest.raises(_Killed):
        train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path / "b", progress=kill)
    resumed = train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path / "b")
    assert _equal(_weights(resumed), _weights(undisturbed))
    assert resumed.history == undisturbed.history
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path)
    steps: list[str] = []

    def watch(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        steps.append(phase)

    again = train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path, progress=watch)
    assert steps == []
    assert _equal(_weights(first), _weights(again))


def test_a_folder_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path)
    other = QUICK.replace(image_weight=0.25)
    with pytest.raises(RunError, match="other settings or data"):
        train(vl2v_adip(other), fresh_classifier(), training_data(), other, folder=tmp_path)
    with pytest.raises(RunError, match="other settings or data"):
        train(vl2v_adip(QUICK), fresh_classifier(seed=1), training_data(), QUICK, folder=tmp_path)
    (tmp_path / "checkpoints/align.pt").write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"align\.pt is damaged"):
        train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path)


def test_evaluations_come_after_the_first_step_then_regularly_then_at_the_end(tmp_path: Path) -> None:
    result = train(vl2v_adip(QUICK), fresh_classifier(), training_data(), QUICK, folder=tmp_path)
    assert [(row["stage"], row["step"]) for row in result.history] == [
        *(("align", step) for step in (1, 4, 7, 9)),
        *(("distill", step) for step in (1, 4, 7)),
    ]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(result.history)
    assert all(row["gap_to_floor"] == pytest.approx(row["loss"] - row["floor"]) for row in rows)
    assert all(row["gap_to_floor"] > 0 for row in rows)


def test_adip_and_erm_learn_a_toy_problem_and_the_result_is_the_scored_student() -> None:
    config = QUICK.replace(align_steps=60, distill_steps=60, evaluate_every=10)
    for method, classifier in (
        (vl2v_adip(config), fresh_classifier()),
        (erm(config), fresh_classifier(text=False)),
    ):
        result = train(method, classifier, training_data(teacher=method.head == "text"), config)
        unseen = coloured_views(30, views=1, domains=("sketch",), seed=9)
        right = result.classifier.logits(unseen.pixels[:, 0]).argmax(axis=1) == unseen.labels
        assert right.mean() > 0.9, method.name
        assert result.validation.accuracy > 0.9


def test_unbought_views_train_on_text_alone() -> None:
    data = training_data()
    assert data.targets is not None
    nothing = replace(data.targets, weights=np.zeros_like(data.targets.weights))
    bought_none = train(vl2v_adip(QUICK), fresh_classifier(), replace(data, targets=nothing), QUICK)
    text_only = QUICK.replace(image_weight=0.0)
    weightless = train(vl2v_adip(text_only), fresh_classifier(), data, text_only)
    assert _equal(_weights(bought_none), _weights(weightless))


def test_the_best_evaluation_is_carried_if_the_stage_asks_for_it() -> None:
    stage = replace(vl2v_adip(QUICK).stages[0], final_weights="best")
    result = train(Method("align only", "text", (stage,)), fresh_classifier(), training_data(), QUICK)
    best = max(result.history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert result.stages[0].best_step == best["step"]
    assert result.validation.accuracy == best["validation_accuracy"]
    assert result.validation.loss == pytest.approx(best["validation_loss"], abs=1e-5)


def test_a_loss_that_explodes_is_reported_with_a_remedy() -> None:
    stage = Stage("wild", ("backbone", "projection"), "image_and_text", 9, float("inf"), final_weights="last")
    with pytest.raises(RunError, match="'wild' is not finite at step 1: lower its learning rate"):
        train(Method("wild", "text", (stage,)), fresh_classifier(), training_data(), QUICK)


def test_the_learning_rate_is_chosen_on_source_validation() -> None:
    config = QUICK.replace(align_steps=15, distill_steps=15, evaluate_every=10)

    def run(rate: float) -> TrainingResult:
        method = erm(config.model_copy(update={"distill_learning_rate": rate}))
        return train(method, fresh_classifier(text=False), training_data(teacher=False), config)

    rate, chosen = choose_learning_rate([1e-7, 1e-3], run)
    assert rate == 1e-3
    assert chosen.validation.rank > run(1e-7).validation.rank


@pytest.mark.parametrize(
    ("scores", "tried", "chosen"),
    [
        ((1, 2, 3, 2, 1), "cbd", "c"),
        ((1, 5, 4, 3, 9), "cba", "b"),
        ((5, 4, 3, 2, 1), "cba", "a"),
        ((1, 2, 3, 4, 5), "cbde", "e"),
        ((3, 3, 3, 3, 3), "cbd", "c"),
    ],
)
def test_the_choice_of_a_learning_rate_climbs_from_the_middle(scores: tuple[int, ...], tried: str, chosen: str) -> None:
    order = []

    def run(rate: float) -> FixedScore:
        order.append("abcde"[int(rate)])
        return FixedScore(SourceScore(scores[int(rate)], 0.0, {}))

    rate, _ = choose_learning_rate(range(5), run)
    assert ("".join(order), "abcde"[int(rate)]) == (tried, chosen)


def test_a_learning_rate_at_which_training_diverges_is_the_worst() -> None:
    def run(rate: float) -> FixedScore:
        if rate != 1:
            raise Diverged(f"not finite at {rate:g}")
        return FixedScore(SourceScore(0.1, 0.0, {}))

    assert choose_learning_rate([0, 1, 2], run)[0] == 1
    assert choose_learning_rate([1, 2, 3], run)[0] == 1
    with pytest.raises(Diverged, match="not finite at"):
        choose_learning_rate([4, 5, 6], run)


@pytest.mark.parametrize("name", ["align_learning_rate", "distill_learning_rate"])
@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none_is_refused_before_anything_is_bought(name: str, rate: float) -> None:
    with pytest.raises(ValidationError, match=name):
        QUICK.replace(**{name: rate})


def test_erm_takes_the_steps_of_both_stages() -> None:
    (stage,) = erm(QUICK).stages
    assert stage.steps == sum(one.steps for one in vl2v_adip(QUICK).stages)


def test_the_published_loop_would_ask_about_every_image_of_every_step() -> None:
    assert online_queries(TrainingConfig(), source_domains=3) == 960_192  # PACS, one target


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        TrainingConfig(image_weight=1.5)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        TrainingConfig(batch_size=0)


def test_targets_must_fit_the_views() -> None:
    train_views = coloured_views(6)
    with pytest.raises(ValueError, match="targets"):
        TrainingData(train_views, coloured_views(6, views=1), teacher_targets(coloured_views(6, views=3)))


def test_the_projection_begins_at_the_ridge_regression_of_the_mixed_targets() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)) * [1, 2, 3, 4, 5] + 1
    targets = features @ random.normal(size=(5, 3)) + random.normal(size=(60, 3)) + 2
    scores: list[float] = []

    def validate() -> SourceScore:  # the third penalty is the best
        scores.append(len(scores) % len(PENALTIES) == 2 or len(scores) >= len(PENALTIES))
        return SourceScore(float(scores[-1]), 0.0, {})

    projection = torch.nn.Linear(5, 3)
    pairs = [(torch.from_numpy(features[cut]), torch.from_numpy(targets[cut])) for cut in (slice(45), slice(45, 60))]
    assert fit_projection(projection, pairs, validate).accuracy == 1
    mean, bias = features.mean(axis=0), targets.mean(axis=0)
    gram = (features - mean).T @ (features - mean) / 60
    penalty = PENALTIES[2] * np.trace(gram) / 5 * np.eye(5)
    weights = np.linalg.solve(gram + penalty, (features - mean).T @ (targets - bias) / 60)
    assert np.allclose(projection.weight.detach().numpy(), weights.T, atol=1e-6)
    assert np.allclose(projection.bias.detach().numpy(), bias - mean @ weights, atol=1e-6)


@pytest.mark.parametrize(("rate", "steps", "odd"), [(0.1, 9, "swad"), (0.3, 15, "last")])
def test_what_a_stage_could_have_left_is_scored_as_if_it_had_been(rate: float, steps: int, odd: str) -> None:
    found, said = {}, []
    for name in ("swad", "best", "last"):
        config = QUICK.replace(distill_steps=steps, distill_learning_rate=rate, final_weights=name)
        result = train(vl2v_adip(config), fresh_classifier(), training_data(), config)
        found[name] = result.validation.accuracy
        said.append(result.by_weights)
    assert [found[name] != found["best"] for name in found] == [name == odd for name in found]
    assert said == [found] * 3


def test_aligning_in_closed_form_is_nearer_to_the_floor_than_many_steps_of_adam() -> None:
    def gap(config: TrainingConfig) -> float:
        result = train(vl2v_adip(config), fresh_classifier(), training_data(), config)
        return next(row["gap_to_floor"] for row in reversed(result.history) if row["stage"] == "align")

    still = QUICK.replace(align="ridge", align_steps=1, align_learning_rate=1e-12)
    assert gap(still) < gap(QUICK.replace(align_steps=60, evaluate_every=60))


def test_adam_is_kept_after_the_closed_form_only_where_source_validation_gains() -> None:
    ruinous = QUICK.replace(align="ridge", align_learning_rate=10.0)
    stage = vl2v_adip(ruinous).stages[0]
    ruined = train(Method("align", "text", (stage,)), fresh_classifier(), training_data(), ruinous)
    assert ruined.stages[0].best_step == 0


def test_a_run_killed_while_it_aligns_from_the_closed_form_ends_with_the_same_bits(tmp_path: Path) -> None:
    config = QUICK.replace(align="ridge")
    undisturbed = train(vl2v_adip(config), fresh_classifier(), training_data(), config, folder=tmp_path / "a")
    for step in (1, 5):

        def kill(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None, at: int = step) -> None:
            if (phase, done) == ("align", at):
                raise _Killed

        with pytest.raises(_Killed):
            train(vl2v_adip(config), fresh_classifier(), training_data(), config, folder=tmp_path / "b", progress=kill)
    again = train(vl2v_adip(config), fresh_classifier(), training_data(), config, folder=tmp_path / "b")
    assert _equal(_weights(undisturbed), _weights(again))
    assert undisturbed.history == again.history  # the steps after the fit count too, if it stays the best
