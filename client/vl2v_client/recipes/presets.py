"""Presets: where a run's hyper-parameters come from, and the student's weights and input, unless somebody names them.

`default` is ours. `paper` is the published protocol (val-iisc/VL2V-ADiP at d442aae) for the students that it was
published for. Adam at 5e-5 without decay or schedule, 32 images per source domain and step, 5,001 steps per stage
(15,001 on DomainNet), an evaluation every 200 (1,000), SWAD's LossValley with 3, 6 and 0.3, the prompt "a photo of a
{class}". Of its known faults,

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

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.recipes.preset_views import DEFAULT_PRESET, PAPER_PRESET, check_preset
from vl2v_client.student.spec import TINY, StudentSpec, resolve_student
from vl2v_client.student.stages import Segments, TrainingConfig

PUBLISHED_TRAINING = TrainingConfig()
"""The published hyper-parameters, for a student of the usual size."""

TINY_TRAINING = TrainingConfig(
    align_steps=100,
    distill_steps=800,
    align_learning_rate=1e-2,
    distill_learning_rate=3e-4,
    batch_size=11,
    evaluate_every=50,
)
"""For the student that ships with the package; chosen on development styles alone, see `docs/data/shapes.md`."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class PublishedStudent:
    """One student of the published scripts.

    Attributes:
        tag: timm's, of the weights that its name meant then.
        align_best_from: as `Stage.best_from`; the scripts' `--model_save`.
        distill_best_from: of the second stage.
        distill_segments: of SWAD in the second stage; the first is cumulative for all.
    """

    tag: str
    align_best_from: int
    distill_best_from: int
    distill_segments: Segments = "cumulative"


PUBLISHED_STUDENTS: Mapping[str, PublishedStudent] = MappingProxyType(
    {
        "vit_base_patch16_224": PublishedStudent("augreg_in21k_ft_in1k", 1000, 100, "original"),
        "vit_small_patch16_224": PublishedStudent("augreg_in21k_ft_in1k", 100, 100),
        "deit_small_distilled_patch16_224": PublishedStudent("fb_in1k", 100, 100),
        "resnet50": PublishedStudent("tv_in1k", 100, 1000),
    }
)
"""By timm's architecture."""


def choose_training(preset: str, student: str, data: Path, **named: Any) -> TrainingConfig:
    """The preset's hyper-parameters, with those of `named` that are not None in their place.

    Args:
        preset: of `PRESETS`.
        student: `tiny`, or a timm name.
        data: the data set's folder; its name tells whether it is DomainNet.
        named: fields of `TrainingConfig`.

    Raises:
        UsageError: no such preset, or none for this student.
    """
    check_preset(preset)
    if preset == PAPER_PRESET:
        base = _paper_training(student, data)
    else:
        base = TINY_TRAINING if student == TINY else PUBLISHED_TRAINING
    return replace(base, **{name: value for name, value in named.items() if value is not None})


def choose_student(
    preset: str,
    name: str,
    *,
    weights: Path | None = None,
    size: int | None = None,
    own_normalisation: bool | None = None,
) -> StudentSpec:
    """The student with the preset's weights and normalisation.

    Args:
        preset: of `PRESETS`.
        name: as in `student.spec.resolve_student`.
        weights: as there.
        size: as there.
        own_normalisation: feed the student what it was trained on, or, if false, ImageNet's mean and deviation as the
            published code does; None is the preset's: true for `default`, false for `paper`.

    Raises:
        UsageError: no such preset, or none for this student; or as `resolve_student`.
        DataError: as there.
    """
    check_preset(preset)
    if preset == PAPER_PRESET and weights is None and "." not in name:
        name = f"{name}.{_published(name).tag}"
    spec = resolve_student(name, weights=weights, size=size)
    keep = preset != PAPER_PRESET if own_normalisation is None else own_normalisation
    return spec if keep else replace(spec, input=replace(spec.input, mean=IMAGENET_MEAN, std=IMAGENET_STD))


def is_domain_net(data: Path) -> bool:
    """Whether a folder's name is DomainNet's: `DomainNet`, or DomainBed's `domain_net`."""
    return data.resolve().name.lower().replace("_", "") == "domainnet"


def _paper_training(student: str, data: Path) -> TrainingConfig:
    published = _published(student)
    steps, every = (15_001, 1_000) if is_domain_net(data) else (5_001, 200)
    return replace(
        PUBLISHED_TRAINING,
        align_steps=steps,
        distill_steps=steps,
        evaluate_every=every,
        align_best_from=published.align_best_from,
        distill_best_from=published.distill_best_from,
        best_of_equals="last",
        align_segments="cumulative",
        distill_segments=published.distill_segments,
    )


def _published(student: str) -> PublishedStudent:
    architecture = student.partition(".")[0]
    if architecture not in PUBLISHED_STUDENTS:
        raise UsageError(
            f"the paper has no student {student!r}: its preset is for {', '.join(PUBLISHED_STUDENTS)}; "
            f"use the preset {DEFAULT_PRESET!r}"
        )
    return PUBLISHED_STUDENTS[architecture]
