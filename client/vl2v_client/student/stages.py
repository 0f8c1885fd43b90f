"""Methods as data: which parts train, in which order, on which objective. The loop knows none of them by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vl2v_client.core.errors import UsageError

Part = Literal["backbone", "projection"]
Head = Literal["text", "linear"]
Selection = Literal["best", "swad", "ema", "last"]
Segments = Literal["original", "cumulative"]
BestOfEquals = Literal["lower_loss", "last"]

EXECUTION_FIELDS = ("checkpoint_every", "device", "workers")
"""Settings of `TrainingConfig` that decide no result, so a resumed run may change them."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The hyper-parameters of a run; the defaults are the published ones.

    Attributes:
        align_steps: steps of the first stage.
        distill_steps: steps of the second; ERM takes both together.
        align_learning_rate: of Adam, constant.
        distill_learning_rate: of Adam, constant; ERM's too, unless it is chosen.
        batch_size: views per source domain and step.
        betas: of Adam.
        weight_decay: of Adam.
        image_weight: `w` of the loss, 0 (text alone) to 1 (image alone).
        label_weight: of the cross-entropy on labels beside the published loss, on the logits that the student
            predicts with; 0 is as published.
        mixup: `a` of `Beta(a, a)`, the share in which each step blends its views and their targets; 0 blends nothing.
        evaluate_every: steps between evaluations on source validation; the segments of SWAD.
        checkpoint_every: steps between checkpoints.
        converge: SWAD's `n_converge`.
        tolerance: SWAD's `n_tolerance`.
        tolerance_ratio: SWAD's.
        final_weights: which weights the last stage leaves, as in `Stage`; the align stage leaves its best.
        ema_decay: of the exponential moving average, once it is warm.
        interpolate: WiSE-FT, as in `Method`.
        align_best_from: as `Stage.best_from`, of the first stage.
        distill_best_from: of the second.
        best_of_equals: as `Stage.best_of_equals`, of both.
        align_segments: as `Stage.segments`, of the first stage.
        distill_segments: of the second.
        evaluation_batch_size: views per forward pass of an evaluation.
        seed: of initial weights and sampling.
        device: `auto` is CUDA where there is one, else the CPU.
        bfloat16: forward passes under autocast.
        channels_last: memory format of images and convolutions.
        compile: `torch.compile` the steps that train the backbone; where that fails, a warning says so.
        workers: threads that load the next steps' views; `None` is none on a CPU, a few beside a GPU.
    """

    align_steps: int = 5001
    distill_steps: int = 5001
    align_learning_rate: float = 5e-5
    distill_learning_rate: float = 5e-5
    batch_size: int = 32
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    image_weight: float = 0.5
    label_weight: float = 0.0
    mixup: float = 0.0
    evaluate_every: int = 200
    checkpoint_every: int = 200
    converge: int = 3
    tolerance: int = 6
    tolerance_ratio: float = 0.3
    final_weights: Selection = "swad"
    ema_decay: float = 0.999
    interpolate: bool = False
    align_best_from: int = 0
    distill_best_from: int = 0
    best_of_equals: BestOfEquals = "lower_loss"
    align_segments: Segments = "original"
    distill_segments: Segments = "original"
    evaluation_batch_size: int = 128
    seed: int = 0
    device: str = "auto"
    bfloat16: bool = False
    channels_last: bool = False
    compile: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        if not 0 <= self.image_weight <= 1:
            raise UsageError(f"image_weight {self.image_weight} is not between 0 and 1")
        if not 0 <= self.label_weight < math.inf:
            raise UsageError(f"label_weight {self.label_weight} is negative or not finite: 0 is off")
        if not 0 <= self.mixup < math.inf:
            raise UsageError(f"mixup {self.mixup} is negative or not finite: 0 is off, 0.2 is usual")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay {self.ema_decay} is not at least 0 and below 1: 0.999 is usual")
        if self.final_weights not in get_args(Selection):
            raise UsageError(f"no final weights {self.final_weights!r}; there are: {', '.join(get_args(Selection))}")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"workers is {self.workers}: it must be at least 0")

    def _check_numbers(self) -> None:
        for name in ("align_learning_rate", "distill_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be above 0 and finite; 5e-5 is published")
        whole = ("align_steps", "distill_steps", "batch_size", "evaluate_every", "checkpoint_every", "converge")
        for name in (*whole, "tolerance", "evaluation_batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the loop.

    Attributes:
        name: of its rows, its checkpoint and its stream of samples.
        trains: the parts that move; all others stay as they are, to the bit.
        objective: a key of `objective.OBJECTIVES`.
        steps: optimizer steps at most; a dead SWAD valley ends the stage early, unless it leaves another average.
        learning_rate: of Adam, constant.
        final_weights: which weights leave the stage: those of the best evaluation on source validation, SWAD's average,
            the exponential moving average, or the last.
        image_weight: the share of the teacher's term; `None` is the config's.
        best_from: evaluations at earlier steps, counted from 0, are not candidates for the best.
        best_of_equals: of equal accuracies, `lower_loss` takes the lower loss, then the first. `last` takes the last of
            those that no earlier evaluation surpasses, not even one before `best_from`, as the published code does.
        segments: which steps a segment of SWAD averages: `original` those since the last evaluation, `cumulative`
            those since step 0 or, past step 2,500, since the last whole thousand, as the published code does.
    """

    name: str
    trains: tuple[Part, ...]
    objective: str
    steps: int
    learning_rate: float
    final_weights: Selection
    image_weight: float | None = None
    best_from: int = 0
    best_of_equals: BestOfEquals = "lower_loss"
    segments: Segments = "original"

    def share_of_image(self, config: TrainingConfig) -> float:
        """The weight `w` of the teacher's term in this stage."""
        return config.image_weight if self.image_weight is None else self.image_weight


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a student.

    Attributes:
        name: as in the literature.
        head: `text` classifies by cosine to the teacher's text embeddings, `linear` by a head of its own.
        stages: in order.
        interpolate: WiSE-FT: the result lies between the last stage's first and final weights, where source
            validation likes it best.
        white_box: the student is the teacher's own image tower, so the teacher must be local.
    """

    name: str
    head: Head
    stages: tuple[Stage, ...]
    interpolate: bool = False
    white_box: bool = False


def online_queries(config: TrainingConfig, source_domains: int) -> int:
    """Image queries that the published loop would ask in a run of these settings: every image of every step."""
    return (config.align_steps + config.distill_steps) * config.batch_size * source_domains


def as_first_named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a stage or a training under the names that version 0.1.0 hashed, so that its checkpoints go on."""
    return {"carries" if name == "final_weights" else name: value for name, value in settings.items()}
