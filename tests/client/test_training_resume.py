"""A run that is killed, in any kind of stage and with any number of loader threads, ends with the same bits."""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.client.student_factories import CLASSES, TINY_VIT, text_head, training_data
from vl2v_client.student.loss.methods import METHODS, Method, TrainingConfig
from vl2v_client.student.model.classifier import new_classifier
from vl2v_client.student.train import feeds
from vl2v_client.student.train import loop as training
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.stage_state import StageState
from vl2v_client.student.train.training_data import TrainingData

QUICK = TrainingConfig(
    align_steps=5,
    distill_steps=6,
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


class _Killed(Exception):
    pass


def _run(
    method: Method, config: TrainingConfig, folder: Path | None = None, *, kill: tuple[str, int] | None = None
) -> TrainingResult:
    def watch(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if (phase, done) == kill:
            raise _Killed

    head = text_head() if method.head == "text" else None
    classifier = new_classifier(TINY_VIT, head, class_count=len(CLASSES), seed=0)
    data: TrainingData = replace(training_data(), teacher_head=text_head())
    return train(method, classifier, data, config, folder=folder, progress=watch)


@cache
def _undisturbed(name: str) -> TrainingResult:
    return _run(METHODS[name](QUICK), QUICK)


def _weights(result: TrainingResult) -> dict[str, Tensor]:
    return dict(result.classifier.student.state_dict())


def _equal(left: TrainingResult, right: TrainingResult) -> bool:
    one, other = _weights(left), _weights(right)
    return left.history == right.history and all(torch.equal(one[name], other[name]) for name in one)


def _every_stage() -> list[tuple[str, str, int]]:
    kills = []
    for name, build in METHODS.items():
        for stage in build(QUICK).stages:
            kills += [(name, stage.name, step) for step in (1, stage.steps // 2, stage.steps)]
    return kills


@pytest.mark.parametrize(("name", "stage", "step"), _every_stage())
def test_every_stage_of_every_method_goes_on_to_the_same_bits(tmp_path: Path, name: str, stage: str, step: int) -> None:
    method = METHODS[name](QUICK)
    with pytest.raises(_Killed):
        _run(method, QUICK, tmp_path, kill=(stage, step))
    assert _equal(_run(method, QUICK, tmp_path), _undisturbed(name))


@pytest.mark.parametrize("moment", ["a step", "an evaluation", "a checkpoint's write"])
def test_no_moment_is_a_bad_one_to_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Killed at its first such moment, in another folder at its second, and so on until there is none."""
    method, left = METHODS["vl2v-adip"](QUICK), 0

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def work_or_die(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Killed
            return work(*arguments)

        return work_or_die

    place = {"a step": (StageState, "add_step"), "an evaluation": (training, "_validate")}.get(moment, (os, "fsync"))
    monkeypatch.setattr(*place, dying(getattr(*place)))
    kills = 0
    while True:
        left = kills + 1
        folder = tmp_path / str(kills)
        try:
            _run(method, QUICK, folder)
        except _Killed:
            kills += 1
            assert _equal(_run(method, QUICK, folder), _undisturbed("vl2v-adip"))
        else:
            break
    assert kills >= 6


@pytest.mark.parametrize(
    "changes",
    [
        {"final_weights": "ema"},
        {"final_weights": "best"},
        {"final_weights": "last"},
        {"interpolate": True},
        {"mixup": 0.3},
        {"bfloat16": True},
        {"channels_last": True},
        {"freeze_until": 1},
        {"freeze_until": 1, "mixup": 0.3, "channels_last": True, "workers": 2},
        {"schedule": "cosine", "warmup": 0.5},
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
    ],
    ids=str,
)
def test_so_does_a_run_of_other_averages_and_formats(tmp_path: Path, changes: dict[str, object]) -> None:
    config = QUICK.replace(**changes)  # type: ignore[arg-type]
    method = METHODS["vl2v-adip"](config)
    undisturbed = _run(method, config)
    with pytest.raises(_Killed):
        _run(method, config, tmp_path, kill=("distill", 5))
    assert _equal(_run(method, config, tmp_path), undisturbed)


@pytest.mark.parametrize("kept", [0, 7])
def test_so_does_one_that_keeps_few_activations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(feeds, "FEATURE_BYTES", kept * 17 * 32 * 2)
    test_so_does_a_run_of_other_averages_and_formats(tmp_path, {"freeze_until": 1})


def test_threads_change_no_bit_and_a_resumed_run_may_change_their_number(tmp_path: Path) -> None:
    method = METHODS["vl2v-adip"](QUICK)
    alone = _run(method, QUICK.replace(workers=0))
    for workers in (1, 3):
        config = QUICK.replace(workers=workers)
        assert _equal(_run(method, config), alone)
        folder = tmp_path / str(workers)
        with pytest.raises(_Killed):
            _run(method, config, folder, kill=("distill", 3))
        assert _equal(_run(method, QUICK.replace(workers=2), folder), alone)


def test_a_compiler_that_fails_is_told_of_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda _network: Broken())
    method, config = METHODS["vl2v-adip"](QUICK), QUICK.replace(compile=True)
    with pytest.warns(UserWarning, match=r"torch\.compile does not work here \(RuntimeError: no C\+\+ compiler\)"):
        result = _run(method, config)
    assert _equal(result, _run(method, QUICK))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_compiler_that_works_trains_the_same_student(monkeypatch: pytest.MonkeyPatch, frozen: int) -> None:
    compiled: list[nn.Module] = []
    eager = torch.compile

    def watched(network: nn.Module) -> nn.Module:
        compiled.append(network)
        wrapped: nn.Module = eager(network, backend="aot_eager")  # type: ignore[assignment]
        return wrapped

    monkeypatch.setattr(torch, "compile", watched)
    quick = QUICK.replace(freeze_until=frozen)
    method, config = METHODS["vl2v-adip"](quick), quick.replace(compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's and PyTorch's versions, in the middle of their work
        result = _run(method, config)
    assert len(compiled) == 1
    plain = _weights(_run(method, quick))
    assert all((value - plain[name]).abs().max() < 1e-3 for name, value in _weights(result).items())
