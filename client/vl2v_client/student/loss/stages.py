"""Methods as data: which parts train, in which order, on which objective. The loop knows none of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vl2v_client.config.training import BestOfEquals, FinalWeights, Segments, TrainingConfig

Part = Literal["backbone", "projection"]
Head = Literal["text", "linear"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the loop.

    Attributes:
        name: Name of its rows, its checkpoint and its stream of samples.
        trains: The parts that move; all others stay as they are, to the bit.
        objective: A key of `objective.OBJECTIVES`.
        steps: Optimizer steps at most; a dead SWAD valley ends the stage early, unless it leaves another average.
        learning_rate: Learning rate of Adam, constant.
        final_weights: Weights that leave the stage: those of the best evaluation on source validation, SWAD's average,
            the exponential moving average, or the last.
        image_weight: The share of the teacher's term; `None` is the config's.
        best_from: Evaluations at earlier steps, counted from 0, are not candidates for the best.
        best_of_equals: Choice among equal accuracies. `lower_loss` takes the lower loss, then the first; `last` takes
            the last of those that no earlier evaluation surpasses, not even one before `best_from`, as published.
        segments: Which steps a segment of SWAD averages: `original` those since the last evaluation, `cumulative`
            those since step 0 or, past step 2,500, since the last whole thousand, as the published code does.
    """

    name: str
    trains: tuple[Part, ...]
    objective: str
    steps: int
    learning_rate: float
    final_weights: FinalWeights
    image_weight: float | None = None
    best_from: int = 0
    best_of_equals: BestOfEquals = "lower_loss"
    segments: Segments = "original"

    def share_of_image(self, config: TrainingConfig) -> float:
        """Return the weight `w` of the teacher's term in this stage."""
        return config.image_weight if self.image_weight is None else self.image_weight


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a student.

    Attributes:
        name: Name in the literature.
        head: `text` classifies by cosine to the teacher's text embeddings, `linear` by a head of its own.
        stages: Stages in order.
        interpolate: WiSE-FT: the result lies between the last stage's first and final weights, where source
            validation likes it best.
        white_box: The student is the teacher's own image tower, so the teacher must be local.
    """

    name: str
    head: Head
    stages: tuple[Stage, ...]
    interpolate: bool = False
    white_box: bool = False


def online_queries(config: TrainingConfig, source_domains: int) -> int:
    """Return image queries that the published loop would ask in a run of these settings: every image of every step."""
    return (config.align_steps + config.distill_steps) * config.batch_size * source_domains


def as_first_named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the names that version 0.1.0 hashed, so that its checkpoints are read."""
    return {"carries" if name == "final_weights" else name: value for name, value in settings.items()}
