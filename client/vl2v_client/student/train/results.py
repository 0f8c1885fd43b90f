"""What a training leaves behind, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vl2v_client.student.loss.stages import Method
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.train.source_score import SourceScore
from vl2v_client.student.train.stage_state import StageState


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        name: Name of the stage.
        steps: Steps taken; fewer than asked for if SWAD's valley died.
        best_step: Steps taken at the best evaluation on source validation.
        best_accuracy: Accuracy of that evaluation, 0 to 1.
        swad_steps: First and last step of SWAD's average.
        swad_converged: False if no valley opened, and the average is the last segment's.
    """

    name: str
    steps: int
    best_step: int
    best_accuracy: float
    swad_steps: tuple[int, int]
    swad_converged: bool


@dataclass(frozen=True)
class TrainingResult:
    """A trained student.

    Attributes:
        method: Method that was run.
        classifier: Student with the final weights of its last stage, and its head.
        validation: Score of exactly those weights on source validation.
        stages: Results of the stages, in order.
        history: One row per evaluation, as in `metrics.jsonl`.
        interpolation: WiSE-FT's share of the final weights, chosen on source validation; `None` without it.
    """

    method: Method
    classifier: StudentClassifier
    validation: SourceScore
    stages: tuple[StageResult, ...]
    history: tuple[Mapping[str, Any], ...]
    interpolation: float | None = None


def stage_result(state: StageState) -> StageResult:
    """Return how a finished stage went."""
    average = state.swad.final()
    return StageResult(
        name=state.stage.name,
        steps=state.step,
        best_step=state.best.step,
        best_accuracy=state.best.rank[0],
        swad_steps=(average.start_step, average.end_step),
        swad_converged=state.swad.is_converged,
    )
