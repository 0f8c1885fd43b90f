"""What a training leaves step by step: the curve in `metrics.jsonl`, event files if wished, and the loss in the bar."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from support.client.student_factories import fresh_classifier, training_data
from vl2v_client.config.run import RunConfig
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.student.loss.methods import vl2v_adip
from vl2v_client.student.train import metrics_log
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.metrics_log import MetricsLog, StepFacts, scalars


class Writer:
    """As torch's `SummaryWriter`, into memory."""

    written: list[tuple[str, float, int]] = []  # noqa: RUF012
    closed = 0

    def __init__(self, log_dir: str) -> None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        (Path(log_dir) / "events.out.tfevents.1").write_text("")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        Writer.written.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        Writer.closed += 1


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.written, Writer.closed = [], 0
    return Writer


def _row(step: int, **more: Any) -> dict[str, Any]:
    of_all = {"stage": "distill", "step": step, "loss": -0.5, "gap_to_floor": 0.25, "validation_accuracy": 0.5}
    return {**of_all, "validation_loss": 1.0, "validation_by_domain": {"photo": 0.5}, **more}


def test_event_files_have_the_curve_and_each_evaluation(tmp_path: Path, writer: type[Writer]) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.0").write_text("of a call that crashed")
    with MetricsLog(tmp_path, event_files=True, rows=[_row(1)]) as log:
        log.add(_row(5, curve=[[3, -0.4, 0.35], [5, -0.6, 0.15]]))
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents.1"]
    assert [(value, step) for name, value, step in writer.written if name == "distill/loss"] == [
        (-0.5, 1),
        (-0.4, 3),
        (-0.6, 5),
    ]
    assert ("distill/validation accuracy of photo", 0.5, 5) in writer.written
    assert writer.closed == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 5]


def test_without_the_option_there_is_no_event_file(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, event_files=False, rows=[]) as log:
        log.add(_row(1))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_option_is_refused_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from vl2v_client.runs.settings import settle

    monkeypatch.setattr(metrics_log, "find_spec", lambda _: None)
    wanted = RunConfig.model_validate({"data": {"root": "nowhere"}, "training": {"tensorboard": True}})
    with pytest.raises(UsageError, match=r"training\.tensorboard needs the package tensorboard: install it with"):
        settle(wanted)
    monkeypatch.setattr(metrics_log, "find_spec", lambda _: object())
    metrics_log.check_event_files(True)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the package tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-not-found,unused-ignore]
        EventAccumulator,
    )

    with MetricsLog(tmp_path, event_files=True, rows=[_row(1)]) as log:
        log.add(_row(5))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("distill/loss")] == [(1, -0.5), (5, -0.5)]


def test_an_old_row_has_one_point() -> None:
    assert list(scalars(_row(200)))[:2] == [("distill/loss", 200, -0.5), ("distill/gap to floor", 200, 0.25)]


def test_the_loss_beside_the_bar_is_that_of_the_last_step_and_is_read_ten_times_a_second() -> None:
    now, reads = [0.0], []

    class Terms(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            reads.append(name)
            return super().__getitem__(name)

    facts = StepFacts(lambda: now[0])
    shown: list[Mapping[str, str]] = []
    for step in range(100):
        now[0] += 0.01
        shown.append(facts.after_step(Terms(loss=torch.tensor(-step / 100), floor=torch.tensor(-1.0))))
    assert shown[0] == {"loss": "0.0000", "gap to floor": "1.0000"}
    assert shown[-1]["loss"] in ("-0.9000", "-0.9100", "-0.9900")
    assert 10 <= reads.count("loss") <= 11
    assert facts.after_evaluation(_row(5)) == {"loss": "-0.5000", "validation": "50.0%", "gap to floor": "0.2500"}
    assert facts.after_step(Terms())["validation"] == "50.0%"
    plain = StepFacts().after_step({"loss": torch.tensor(0.5, requires_grad=True), "floor": torch.tensor(0.0)})
    assert plain == {"loss": "0.5000"}, "a floor of 0 says nothing"


@pytest.mark.parametrize(("every", "points"), [(4, [[1], [2, 3, 4, 5], [6, 7, 8, 9]]), (40, [[], [5, 9]])])
def test_the_training_curve_is_kept_between_evaluations(every: int, points: list[list[int]], tmp_path: Path) -> None:
    config = TrainingConfig(align_steps=9, distill_steps=1, evaluate_every=every, batch_size=2, device="cpu")
    seen: list[Mapping[str, str]] = []

    def watch(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if phase in ("align", "distill"):
            seen.append(extras or {})

    result = train(vl2v_adip(config), fresh_classifier(), training_data(), config, folder=tmp_path, progress=watch)
    assert all("loss" in facts for facts in seen), "at every step"
    rows = [row for row in result.history if row["stage"] == "align"]
    assert [[point[0] for point in row["curve"]] for row in rows] == points
    for row in rows if every == 4 else ():
        losses, gaps = ([point[column] for point in row["curve"]] for column in (1, 2))
        assert sum(losses) / len(losses) == pytest.approx(row["loss"], abs=1e-6)
        assert sum(gaps) / len(gaps) == pytest.approx(row["gap_to_floor"], abs=1e-6)
