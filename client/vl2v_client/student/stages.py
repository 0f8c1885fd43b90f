"""Methods as data: which parts train, in which order, on which objective. The loop knows none of them by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vl2v_client.core.errors import UsageError

Part = Literal["backbone", "projection"]
Head = Literal["text", "linear"]
Selection = Literal["best", "swad", "last"]

WITHOUT_EFFECT = ("checkpoint_every", "device")
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
        evaluate_every: steps between evaluations on source validation; the segments of SWAD.
        checkpoint_every: steps between checkpoints.
        converge: SWAD's `n_converge`.
        tolerance: SWAD's `n_tolerance`.
        tolerance_ratio: SWAD's.
        evaluation_batch_size: views per forward pass of an evaluation.
        seed: of initial weights and sampling.
        device: `auto` is CUDA where there is one, else the CPU.
        bfloat16: forward passes under autocast.
        channels_last: memory format of images and convolutions.
    """

    align_steps: int = 5001
    distill_steps: int = 5001
    align_learning_rate: float = 5e-5
    distill_learning_rate: float = 5e-5
    batch_size: int = 32
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    image_weight: float = 0.5
    evaluate_every: int = 200
    checkpoint_every: int = 200
    converge: int = 3
    tolerance: int = 6
    tolerance_ratio: float = 0.3
    evaluation_batch_size: int = 128
    seed: int = 0
    device: str = "auto"
    bfloat16: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.image_weight <= 1:
            raise UsageError(f"image_weight {self.image_weight} is not between 0 and 1")
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
        steps: optimizer steps at most; a dead SWAD valley ends the stage early.
        learning_rate: of Adam, constant.
        carries: which weights leave the stage: those of the best evaluation on source validation, SWAD's average, or
            the last.
    """

    name: str
    trains: tuple[Part, ...]
    objective: str
    steps: int
    learning_rate: float
    carries: Selection


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a student.

    Attributes:
        name: as in the literature.
        head: `text` classifies by cosine to the teacher's text embeddings, `linear` by a head of its own.
        stages: in order.
    """

    name: str
    head: Head
    stages: tuple[Stage, ...]


def vl2v_adip(config: TrainingConfig) -> Method:
    """Align the projection to the teacher on frozen features, then distil into the backbone under it.

    As published, the second stage starts from the best evaluation of the first, and SWAD's average over the second is
    the result; unlike there, that average is the student that is kept.
    """
    align = Stage(
        "align", ("projection",), "image_and_text", config.align_steps, config.align_learning_rate, carries="best"
    )
    distill = Stage(
        "distill", ("backbone",), "image_and_text", config.distill_steps, config.distill_learning_rate, carries="swad"
    )
    return Method("VL2V-ADiP", "text", (align, distill))


def erm(config: TrainingConfig, *, learning_rate: float | None = None) -> Method:
    """Cross-entropy on the labels alone, for as many steps on the same views as both stages of VL2V-ADiP."""
    steps = config.align_steps + config.distill_steps
    rate = config.distill_learning_rate if learning_rate is None else learning_rate
    return Method("ERM", "linear", (Stage("erm", ("backbone", "projection"), "cross_entropy", steps, rate, "swad"),))


def online_queries(config: TrainingConfig, source_domains: int) -> int:
    """Image queries that the published loop would ask in a run of these settings: every image of every step."""
    return (config.align_steps + config.distill_steps) * config.batch_size * source_domains
