"""The trial before a stage: what it says, and that it leaves no trace."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.client.student_factories import fresh_classifier, training_data
from vl2v_client.core.progress import StageEstimate, format_seconds
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_client.student.train import estimate, loop
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.stage_state import StageState
from vl2v_client.student.train.training_run import TrainingRun

CONFIG = TrainingConfig(align_steps=2, distill_steps=60, batch_size=4, evaluate_every=20, mixup=0.5, device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("freeze_until", [0, 1])
def test_a_trial_leaves_student_and_random_stream_as_they_are(freeze_until: int) -> None:
    config = CONFIG.replace(freeze_until=freeze_until)
    run, stage = TrainingRun(fresh_classifier(), training_data(), config), vl2v_adip(config).stages[1]
    state = StageState(stage, run.classifier.student, config)
    before = {name: value.clone() for name, value in run.classifier.student.state_dict().items()}
    random = torch.get_rng_state()
    found = estimate.estimate_stage(run, stage, 10)
    assert torch.equal(torch.get_rng_state(), random)
    after = run.classifier.student.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(value.grad is None for value in state.weights.values())
    assert (found.stage, found.steps, found.device) == ("distill", 50, "cpu")
    assert 0 < found.seconds < 60
    whole = estimate.estimate_stage(run, replace(stage, steps=6000), 0)
    assert whole.seconds > 10 * found.seconds
    assert found.memory_bytes is not None
    assert found.memory_bytes > 5 * 10**7


def test_where_the_system_does_not_tell_the_memory_the_time_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows has no such module
    estimate_stage = runpy.run_path(estimate.__file__)["estimate_stage"]
    run = TrainingRun(fresh_classifier(), training_data(), CONFIG)
    found = estimate_stage(run, vl2v_adip(CONFIG).stages[1], 0)
    assert found.memory_bytes is None
    assert str(replace(found, seconds=390.0)) == (
        "The distill stage needs about 6 min on cpu for 60 steps, by a trial of two."
    )


@pytest.mark.parametrize("freeze_until", [0, 1])
def test_a_run_with_a_trial_ends_with_the_same_bits_and_a_killed_one_keeps_the_first_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze_until: int
) -> None:
    config = CONFIG.replace(freeze_until=freeze_until, checkpoint_every=5)
    method = vl2v_adip(config)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "MIN_STEPS", 10**6)
        plain = train(method, fresh_classifier(), training_data(), config, notify=said.append)
    assert plain.estimate is None
    assert [sentence.split()[:4] for sentence in said] == [["After", "the", "align", "stage,"]]

    def kill(phase: str, done: int, total: int, extras: object = None) -> None:
        if (phase, done) == ("distill", 7):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(method, fresh_classifier(), training_data(), config, folder=tmp_path, progress=kill, notify=said.append)
    result = train(method, fresh_classifier(), training_data(), config, folder=tmp_path, notify=said.append)
    assert said[2].startswith("The distill stage needs about ")
    assert "for 60 steps, by a trial of two" in said[2]
    assert "for 55 steps, by a trial of two" in said[-1]
    assert result.estimate is not None
    assert result.estimate.steps == 60
    left, right = result.classifier.student.state_dict(), plain.classifier.student.state_dict()
    assert all(torch.equal(left[name], value) for name, value in right.items())


def test_times_and_sizes_are_told_for_people() -> None:
    told = [format_seconds(seconds) for seconds in (0.1, 40.4, 89, 91, 3600, 5399, 5401, 7800)]
    assert told == ["1 s", "40 s", "89 s", "2 min", "60 min", "1 h 30 min", "1 h 30 min", "2 h 10 min"]
    assert str(StageEstimate("distill", 4000, 390.0, 1_240_000_000, "cpu")) == (
        "The distill stage needs about 6 min and 1.2 GB of memory on cpu for 4,000 steps, by a trial of two."
    )
