"""Mixup: blends are a function of seed, stage and step, equal the blended target's loss, and resume to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from support.client.student_factories import fresh_classifier, training_data
from vl2v_client.core.errors import RunError
from vl2v_client.student.loss.methods import TrainingConfig, erm, vl2v_adip
from vl2v_client.student.loss.objective import Batch, cross_entropy, image_and_text
from vl2v_client.student.model.classifier import student_input
from vl2v_client.student.train.feeds import open_feed
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.training_run import Mix, TrainingRun, draw_mix

MIXED = TrainingConfig(
    align_steps=4,
    distill_steps=5,
    align_learning_rate=1e-2,
    distill_learning_rate=1e-3,
    batch_size=4,
    evaluate_every=3,
    checkpoint_every=2,
    mixup=0.4,
    device="cpu",
)
ROWS, VIEWS = np.arange(8), np.arange(8) % 2


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _draw(alpha: float = 0.4, *, seed: int = 0, stage: str = "distill", step: int = 0) -> Mix:
    mix = draw_mix(ROWS, VIEWS, alpha=alpha, seed=seed, stage=stage, step=step)
    assert mix is not None
    return mix


def test_partners_are_the_batch_in_another_order_by_seed_stage_and_step() -> None:
    mix, again = _draw(), _draw()
    assert mix.share == again.share
    assert (mix.rows == again.rows).all()
    assert sorted(mix.rows.tolist()) == ROWS.tolist()
    assert (mix.views == VIEWS[mix.rows]).all()
    others = [_draw(seed=1), _draw(stage="align"), _draw(step=1)]
    assert len({mix.share, *(other.share for other in others)}) == 4


def test_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.2, 2.0):
        shares = np.array([_draw(alpha, step=step).share for step in range(2000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_no_alpha_blends_nothing_and_a_negative_one_is_refused() -> None:
    assert draw_mix(ROWS, VIEWS, alpha=0.0, seed=0, stage="distill", step=0) is None
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TrainingConfig(mixup=-0.1)


def _batch(seed: int, outputs: Tensor) -> Batch:
    random = torch.Generator().manual_seed(seed)
    unit = [functional.normalize(torch.randn(8, 6, generator=random, dtype=torch.float64), dim=-1) for _ in range(2)]
    labels = torch.randint(0, 6, (8,), generator=random)
    return Batch(outputs, labels, unit[0], unit[1], torch.rand(8, generator=random, dtype=torch.float64))


def _one_hot(batch: Batch) -> Tensor:
    return functional.one_hot(batch.labels, 6).double()


def test_blended_terms_equal_the_loss_against_the_blended_target() -> None:
    outputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own, others = _batch(1, outputs), _batch(2, outputs)
    mix = replace(_draw(), share=0.3)

    loss = mix.blend_terms(image_and_text(own), image_and_text(others))["loss"]
    weights = [batch.image_weights[:, None] for batch in (own, others)]
    targets = [w * b.image_targets + (1 - w) * b.text_targets for w, b in zip(weights, (own, others), strict=True)]
    blended = 0.3 * targets[0] + 0.7 * targets[1]
    expected = -(functional.normalize(outputs, dim=-1) * blended).sum(dim=-1).mean()
    assert float(loss) == pytest.approx(float(expected), abs=1e-12)

    loss = mix.blend_terms(cross_entropy(own), cross_entropy(others))["loss"]
    labels = 0.3 * _one_hot(own) + 0.7 * _one_hot(others)
    assert float(loss) == pytest.approx(float(functional.cross_entropy(outputs, labels)), abs=1e-12)


@pytest.mark.parametrize("stage", [0, 1], ids=["align", "distill"])
def test_a_feed_blends_what_goes_into_the_part_that_trains(stage: int) -> None:
    run = TrainingRun(fresh_classifier(), training_data(), MIXED)
    run.classifier.student.eval()
    feed = open_feed(run, vl2v_adip(MIXED).stages[stage])
    loaded, student, pixels = feed.load(0), run.classifier.student, run.data.train.pixels
    assert loaded.mix is not None
    mix = replace(loaded.mix, share=0.25)
    own = student_input(pixels[loaded.rows, loaded.views], run.classifier.input, torch.device("cpu"))
    others = student_input(pixels[mix.rows, mix.views], run.classifier.input, torch.device("cpu"))
    if stage == 0:
        expected = student.projection(0.25 * student.features(own) + 0.75 * student.features(others))
    else:
        expected = student(0.25 * own + 0.75 * others)
    torch.testing.assert_close(feed.outputs(replace(loaded, mix=mix)), expected, atol=1e-6, rtol=1e-5)


def _weights(config: TrainingConfig, folder: Path | None = None, *, text: bool = True) -> dict[str, Tensor]:
    method = vl2v_adip(config) if text else erm(config)
    data = training_data(teacher=text)
    trained = train(method, fresh_classifier(text=text), data, config, folder=folder)
    return {name: value.clone() for name, value in trained.classifier.student.state_dict().items()}


@pytest.mark.parametrize("text", [True, False], ids=["adip", "erm"])
def test_mixup_changes_the_student_and_repeats_to_the_bit(text: bool) -> None:
    first, again, plain = (_weights(config, text=text) for config in (MIXED, MIXED, MIXED.replace(mixup=0.0)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], plain[name]) for name in first)


@pytest.mark.parametrize(("stage", "step"), [("align", 3), ("distill", 3)])
def test_a_killed_run_with_mixup_ends_with_the_same_bits(tmp_path: Path, stage: str, step: int) -> None:
    def kill(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if (phase, done) == (stage, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(vl2v_adip(MIXED), fresh_classifier(), training_data(), MIXED, folder=tmp_path, progress=kill)
    resumed, undisturbed = _weights(MIXED, tmp_path), _weights(MIXED)
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
    with pytest.raises(RunError, match="other settings or data"):
        _weights(MIXED.replace(mixup=0.5), tmp_path)
