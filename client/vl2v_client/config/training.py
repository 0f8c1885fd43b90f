"""How an option is declared, and the hyper-parameters of training.

The defaults are the published ones (Addepalli et al., arXiv 2310.08255).
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Options(BaseModel):
    """A group of options. Immutable; an unknown name, a wrong type or a value out of range is refused.

    `model_fields_set` holds the options that somebody named; all others have their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with other values.

        Raises:
            pydantic.ValidationError: A name is unknown or a value is out of range.
        """
        return type(self).model_validate({**self.named(), **changes})

    def result_options(self) -> dict[str, Any]:
        """Return the values that decide what a run makes, as JSON values by option."""
        kept = {name for name, info in type(self).model_fields.items() if declared(info, "result")}
        return self.model_dump(mode="json", include=kept)

    def named(self) -> dict[str, Any]:
        """Return the values that somebody named, by option."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def option(default: Any, text: str, *, unit: str = "", common: bool = False, result: bool = True, **limits: Any) -> Any:
    """Declare an option.

    Args:
        default: Value if nobody names another. `None` leaves it to the preset or to the data.
        text: One sentence for the help and the reference.
        unit: Unit of the value, added to the help.
        common: Whether the help lists it among the options that people use first.
        result: Whether it decides what a run makes; a run folder may be continued with other values of the rest.
        limits: Range, as `pydantic.Field` takes it: `ge`, `gt`, `le`, `lt`.
    """
    description = f"{text}, in {unit}." if unit else f"{text}."
    return Field(default, description=description, json_schema_extra={"common": common, "result": result}, **limits)


def declared(info: FieldInfo, what: Literal["common", "result"]) -> bool:
    """Tell what `option` was given as `common` or `result`."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra[what])


Preset = Literal["default", "thorough", "paper"]
MethodName = Literal[
    "vl2v-adip",
    "vl2v-sd",
    "erm",
    "linear-probe",
    "lp-ft",
    "text-head",
    "kd",
    "vl2lite",
    "image-cosine",
    "text-cosine",
    "rise-relative",
    "feature-mse",
    "simkd",
    "adip-no-align",
    "adip-align-only",
    "adip-joint",
]
FinalWeights = Literal["swad", "ema", "best", "last"]
Segments = Literal["original", "cumulative"]
BestOfEquals = Literal["lower_loss", "last"]
Align = Literal["adam", "ridge"]
Trust = Literal["all", "agreement"]
Unbought = Literal["borrow", "text", "leave-out"]
Schedule = Literal["constant", "cosine"]
Optimizer = Literal["adam", "adamw"]


class TrainingConfig(Options):
    """How the student trains."""

    preset: Preset = option("default", "Source of the values that nobody names; `paper` is the published protocol")
    method: MethodName = option("vl2v-adip", "Method of the student that is exported", common=True)
    baselines: tuple[MethodName, ...] = option((), "Method trained beside it to compare; repeatable")
    probe: bool = option(False, "Export a probe on labels alone if it validates better; not with `paper`", result=False)
    quick: bool = option(
        False,
        "Stop before the backbone trains, and export the frozen student; the same without it goes on",
        common=True,
        result=False,
    )
    train_views: int | None = option(None, "Views of each image to train on, if more than are bought", ge=0)
    unbought: Unbought = option(
        "borrow",
        "A view that is not bought borrows its image's answer, has its text alone, or is left out if another is bought",
    )
    trust: Trust = option("all", "Weight of bought answers: all count alike, or by agreement with the labels")
    align: Align = option("adam", "First projection: drawn, for Adam to train, or ridge regression in closed form")
    align_steps: int = option(5001, "Optimizer steps of the align stage", ge=1)
    distill_steps: int = option(5001, "Optimizer steps of the distill stage", ge=1, common=True)
    extend: tuple[int, ...] = option(
        (), "Further steps from what the run has reached, with warm-up and schedule from their start; repeatable"
    )
    align_learning_rate: float = option(5e-5, "Learning rate of Adam in the align stage", gt=0)
    distill_learning_rate: float = option(5e-5, "Learning rate of Adam in the distill stage", gt=0)
    schedule: Schedule = option("constant", "Learning rate after the warm-up: as it is, or along a cosine to 0")
    warmup: float = option(0.0, "Share of a stage's steps in which the learning rate rises from 0", ge=0, lt=1)
    freeze_until: int = option(0, "First blocks, stem included, that never train; `default` freezes half", ge=0)
    batch_size: int = option(32, "Views per source domain and step", ge=1)
    optimizer: Optimizer = option("adam", "Optimizer; AdamW decays matrices alone, and apart from the gradient")
    betas: tuple[float, float] = option((0.9, 0.999), "Decay rates of Adam's moments")
    weight_decay: float = option(0.0, "Weight decay of the optimizer", ge=0)
    image_weight: float = option(0.5, "Weight of the image term; the text term has the rest", ge=0, le=1)
    label_weight: float = option(0.0, "Weight of a cross-entropy on labels beside the published loss", ge=0)
    soft_label_weight: float = option(
        0.0, "Weight of a divergence from the teacher's class probabilities beside the published loss", ge=0
    )
    mixup: float = option(0.0, "Parameter `a` of the Beta(a, a) that mixes views or frozen activations; 0 is off", ge=0)
    evaluate_every: int = option(200, "Steps between evaluations on source validation; a segment of SWAD", ge=1)
    checkpoint_every: int = option(200, "Steps between checkpoints", ge=1, result=False)
    converge: int = option(3, "SWAD's n_converge", ge=1)
    tolerance: int = option(6, "SWAD's n_tolerance", ge=1)
    tolerance_ratio: float = option(0.3, "SWAD's tolerance ratio")
    final_weights: FinalWeights = option("swad", "Weights that the last stage leaves")
    ema_decay: float = option(0.999, "Decay of the exponential moving average of weights", ge=0, lt=1)
    interpolate: bool = option(False, "WiSE-FT between first and trained weights, chosen on source validation")
    align_best_from: int = option(0, "First step whose evaluation can be the best of the align stage", ge=0)
    distill_best_from: int = option(0, "First step whose evaluation can be the best of the distill stage", ge=0)
    best_of_equals: BestOfEquals = option("lower_loss", "Choice among equally accurate evaluations")
    align_segments: Segments = option("original", "Steps that a SWAD segment of the align stage averages")
    distill_segments: Segments = option("original", "Steps that a SWAD segment of the distill stage averages")
    evaluation_batch_size: int = option(128, "Most views per forward pass of an evaluation", ge=1)
    seed: int = option(0, "Seed of initial weights and sampling")
    device: str = option("auto", "Device: auto, cpu, cuda or cuda:N", result=False, common=True)
    bfloat16: bool = option(False, "Forward passes in bfloat16, faster on recent GPUs")
    channels_last: bool = option(False, "Memory format that suits convolutional students")
    compile: bool = option(False, "Compile the student with torch.compile, for GPUs")
    threads: int | None = option(
        None, "Threads of PyTorch on a CPU, which decide last bits; its own choice if left out", ge=1
    )
    tensorboard: bool = option(False, "Write event files for TensorBoard beside the metrics", result=False)
    workers: int | None = option(None, "Threads that load the next views; by device if left out", ge=0, result=False)

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """All methods that are trained, the exported one last."""
        return (*self.baselines, self.method)

    def drawn_views(self, steps: int, source_domains: int) -> int:
        """Return how many views so many steps draw, mixup's partners aside."""
        return steps * self.batch_size * source_domains
