"""Presets: the values of options that nobody named.

`default` and `thorough` are ours. `paper` is the published protocol (val-iisc/VL2V-ADiP at d442aae) for the students
that it was published for: Adam at 5e-5 without decay or schedule, 32 images per source domain and step, 5,001 steps per
stage (15,001 on DomainNet), an evaluation every 200 (1,000), SWAD's LossValley with 3, 6 and 0.3, the prompt "a photo
of a {class}". Of its known faults,

- the students' input is normalised with ImageNet's mean and deviation, whatever they were trained with: copied, and
  switched off by `own_normalisation`. ViT-B and ViT-S of augreg expect 0.5 and 0.5;
- SWAD's segments go on since step 0, except in the second stage of ViT-B: copied, `TrainingConfig.*_segments`;
- evaluations of the first steps are no candidates for the best, but a bar for the others: copied,
  `TrainingConfig.*_best_from`. Where none is left, its second stage cannot start; ours takes the last;
- of equally accurate evaluations the last is best, whatever its loss: copied, `TrainingConfig.best_of_equals`;
- the teacher is fed the same wrongly normalised tensor: not copied, a vendor normalises what it is sent;
- the averaged weights are scored and thrown away: not copied, the scored student is the one that is kept;
- timm's names without a tag, which today mean other weights: written out here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v_client.config.run import DEFAULT_VIEWS, TINY, PurchaseConfig, RunConfig, ViewRecipeName
from vl2v_client.config.training import Segments, TrainingConfig
from vl2v_client.core.errors import UsageError

TINY_TRAINING: Mapping[str, Any] = {
    "align_steps": 100,
    "distill_steps": 800,
    "align_learning_rate": 1e-2,
    "distill_learning_rate": 3e-4,
    "batch_size": 11,
    "evaluate_every": 50,
}
"""Training of the packaged student; chosen on development styles alone, see `docs/data/shapes.md`."""

PRETRAINED_TRAINING: Mapping[str, Any] = {
    "align": "ridge",
    "align_steps": 100,
    "distill_steps": 400,
    "align_learning_rate": 1e-3,
    "distill_learning_rate": 5e-4,
    "schedule": "cosine",
    "warmup": 0.05,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "soft_label_weight": 16.0,
    "evaluate_every": 100,
    "final_weights": "ema",
    "channels_last": True,
}
"""Training of any other student, above the half of its blocks that is frozen; see `docs/methods/presets.md`."""

THOROUGH = 4
"""How many times the default's steps the distill stage of `thorough` takes: for patience or a GPU."""

TINY_TRAIN_VIEWS = 10
"""Views that the packaged student trains on; chosen on development styles alone, see `docs/data/shapes.md`."""


@dataclass(frozen=True, slots=True)
class PublishedStudent:
    """One student of the published scripts.

    Attributes:
        tag: Timm's tag of the weights that its name meant then.
        align_best_from: First step whose evaluation can be the best of the first stage; the scripts' model_save.
        distill_best_from: The same of the second stage.
        distill_segments: SWAD's segments in the second stage; those of the first are cumulative for all.
    """

    tag: str
    align_best_from: int
    distill_best_from: int
    distill_segments: Segments = "cumulative"


PUBLISHED_STUDENTS: Mapping[str, PublishedStudent] = {
    "vit_base_patch16_224": PublishedStudent("augreg_in21k_ft_in1k", 1000, 100, "original"),
    "vit_small_patch16_224": PublishedStudent("augreg_in21k_ft_in1k", 100, 100),
    "deit_small_distilled_patch16_224": PublishedStudent("fb_in1k", 100, 100),
    "resnet50": PublishedStudent("tv_in1k", 100, 1000),
}
"""By timm's architecture."""


def resolve(config: RunConfig, before: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the configuration with a value for every option that decides the result.

    Options of `before`, in a run that goes on, take the place of the same preset's values.

    Raises:
        UsageError: The preset has no such student, or options contradict each other.
    """
    before = before if before and before.get("preset") == config.training.preset else {}
    training = _resolve_training(config, {name: before[name] for name in before.keys() - {"view_recipe", "student"}})
    seed = training.seed if config.data.seed is None else config.data.seed
    purchase = _resolve_purchase(config, training.preset, before.get("view_recipe"))
    if training.train_views is None:
        borrows = config.student.name == TINY and training.preset != "paper" and not purchase.online
        views = max(purchase.views or 0, TINY_TRAIN_VIEWS if borrows else 0)
        training = training.replace(train_views=views)
    if not purchase.views and "soft_label_weight" not in config.training.named():
        training = training.replace(soft_label_weight=0.0)  # no answer about an image, nothing to learn them from
    return config.replace(data=config.data.replace(seed=seed), purchase=purchase, training=training)


def _resolve_training(config: RunConfig, before: Mapping[str, Any]) -> TrainingConfig:
    training, student = config.training, config.student.name
    if training.preset == "paper":
        values: Mapping[str, Any] = _paper_training(student, config.data.root)
    else:
        values = {"probe": True, **(TINY_TRAINING if student == TINY else PRETRAINED_TRAINING)}
        if config.purchase.online:
            values = {**values, "align": "adam"}  # a closed form needs stored views
        if training.preset == "thorough":
            values = {**values, "distill_steps": THOROUGH * values["distill_steps"]}
    return TrainingConfig.model_validate({**values, **before, **training.named()})


def freezes_half(config: RunConfig) -> bool:
    """Tell whether the first half of the student's blocks stays frozen, since nobody says how many."""
    named, preset = config.training.model_fields_set, config.training.preset
    return preset != "paper" and config.student.name != TINY and "freeze_until" not in named


def _resolve_purchase(config: RunConfig, preset: str, recipe_before: ViewRecipeName | None) -> PurchaseConfig:
    purchase, ours = config.purchase, "styles" if config.student.name == TINY else "drawn"
    if purchase.online and purchase.views is not None:
        raise UsageError("purchase.online asks about fresh views at every step: leave purchase.views out")
    views = DEFAULT_VIEWS if purchase.views is None else purchase.views
    recipe = purchase.view_recipe or recipe_before or ("published" if preset == "paper" else ours)
    return purchase.replace(views=1 if purchase.online else views, view_recipe=recipe)


def published_student(name: str) -> PublishedStudent:
    """Return the row of the published scripts for a student.

    Raises:
        UsageError: The paper has no such student.
    """
    architecture = name.partition(".")[0]
    if architecture not in PUBLISHED_STUDENTS:
        raise UsageError(
            f"the paper has no student {name!r}: its preset is for {', '.join(PUBLISHED_STUDENTS)}; "
            "use the preset 'default'"
        )
    return PUBLISHED_STUDENTS[architecture]


def is_domain_net(data: Path | None) -> bool:
    """Tell whether a folder's name is DomainNet's: `DomainNet`, or DomainBed's `domain_net`."""
    return data is not None and data.resolve().name.lower().replace("_", "") == "domainnet"


def _paper_training(student: str, data: Path | None) -> dict[str, Any]:
    published = published_student(student)
    steps, every = (15_001, 1_000) if is_domain_net(data) else (5_001, 200)
    return {
        "align_steps": steps,
        "distill_steps": steps,
        "evaluate_every": every,
        "align_best_from": published.align_best_from,
        "distill_best_from": published.distill_best_from,
        "best_of_equals": "last",
        "align_segments": "cumulative",
        "distill_segments": published.distill_segments,
    }
