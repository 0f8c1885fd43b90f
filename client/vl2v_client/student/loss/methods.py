"""The methods under their literature names: each a row of stages for the one loop, none a class of its own.

Every method but VL2V-SD, which has one published stage, trains for as many steps as VL2V-ADiP's two together, on the
same views, so that rows differ in what they learn from and not in how long. A view without a target trains on its
class's text alone, and in KD on its label alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.student.loss.stages import Head, Method, Part, Stage

VL2V_ADIP = "vl2v-adip"
ERM = "erm"

KD_IMAGE_WEIGHT = 0.9
"""KD's alpha, the share of the softened targets: Hinton et al. found a considerably lower weight on the labels best."""

ASK_ABOUT_IMAGES = frozenset({"image_and_text", "soft_targets", "feature_mse", "simkd"})
"""The objectives that read the teacher's image embeddings."""

ASK_ABOUT_TEXTS = ASK_ABOUT_IMAGES | {"text_distances"}
"""The objectives that read its text embeddings."""

ADD_LABELS = frozenset({"image_and_text"})
"""The objectives that a label weight adds a cross-entropy to."""

_HYPER_PARAMETERS = ("align_steps", "align_learning_rate", "distill_learning_rate", "image_weight")
"""Options of training that some methods ignore."""

_ALL: tuple[Part, ...] = ("backbone", "projection")


def vl2v_adip(config: TrainingConfig) -> Method:
    """Align the projection to the teacher on frozen features, then distil into the backbone under it.

    As published (Addepalli et al., CVPR 2024, arXiv 2310.08255), the second stage starts from the best evaluation of
    the first, and SWAD's average over the second is the result; unlike there, that average is the student that is
    kept.
    """
    return _two_stages("VL2V-ADiP", config, "image_and_text")


def vl2v_sd(config: TrainingConfig) -> Method:
    """Distil the teacher's image tower from its frozen self: the white-box form of the same paper.

    One stage, in which the tower and its own output projection all train on the same loss as VL2V-ADiP.
    """
    stage = _stage("distill", _ALL, "image_and_text", config.distill_steps, config.distill_learning_rate, config)
    return Method("VL2V-SD", "text", (stage,), interpolate=config.interpolate, white_box=True)


def erm(config: TrainingConfig, *, learning_rate: float | None = None) -> Method:
    """Return empirical risk minimisation: cross-entropy on the labels alone, as in DomainBed (arXiv 2007.01434)."""
    return _one_stage("ERM", config, "erm", _ALL, "cross_entropy", rate=learning_rate, head="linear")


def linear_probe(config: TrainingConfig) -> Method:
    """Return a linear head on the frozen backbone, by cross-entropy; at the align stage's learning rate."""
    rate = config.align_learning_rate
    return _one_stage("linear probe", config, "probe", ("projection",), "cross_entropy", rate=rate, head="linear")


def kd(config: TrainingConfig) -> Method:
    """Return knowledge distillation (Hinton et al., arXiv 1503.02531), on the teacher's zero-shot probabilities.

    The teacher's logits are made here, of its bought image embeddings and text matrix; see `objective.soft_targets`.
    """
    return _one_stage("KD", config, "kd", _ALL, "soft_targets", head="linear", image_weight=KD_IMAGE_WEIGHT)


def image_cosine(config: TrainingConfig) -> Method:
    """Run VL2V-ADiP with the image term alone."""
    return _two_stages("image cosine", config, "image_and_text", image_weight=1.0)


def text_cosine(config: TrainingConfig) -> Method:
    """Run VL2V-ADiP with the text term alone, which is RISE's absolute distance (Huang et al., arXiv 2309.12530)."""
    return _two_stages("text cosine", config, "image_and_text", image_weight=0.0)


def rise_relative(config: TrainingConfig) -> Method:
    """Train on RISE's two language terms, absolute and relative, in VL2V-ADiP's stages; no image is asked about."""
    return _two_stages("RISE relative", config, "text_distances", image_weight=0.0)


def feature_mse(config: TrainingConfig) -> Method:
    """Return feature distillation of CLIP-KD (Yang et al., arXiv 2307.12732): mean squared error of unit vectors."""
    return _two_stages("feature MSE", config, "feature_mse", image_weight=1.0)


def simkd(config: TrainingConfig) -> Method:
    """Fit features by squared error and reuse the teacher's classifier: SimKD (Chen et al., arXiv 2203.14001).

    As published, backbone and projection train together and no label is read. The projection here is the student's
    linear one, not a block of convolutions on feature maps, which a vendor does not sell.
    """
    return _one_stage("SimKD", config, "simkd", _ALL, "simkd", image_weight=1.0)


def adip_no_align(config: TrainingConfig) -> Method:
    """Train the backbone under a projection that stays as it was drawn."""
    return _one_stage("ADiP, no align", config, "distill", ("backbone",), "image_and_text")


def adip_align_only(config: TrainingConfig) -> Method:
    """Train the projection on a backbone that stays as it was."""
    rate = config.align_learning_rate
    return _one_stage("ADiP, align only", config, "align", ("projection",), "image_and_text", rate=rate)


def adip_joint(config: TrainingConfig) -> Method:
    """Train projection and backbone together in one stage."""
    return _one_stage("ADiP, joint", config, "joint", _ALL, "image_and_text")


METHODS: Mapping[str, Callable[[TrainingConfig], Method]] = MappingProxyType(
    {
        VL2V_ADIP: vl2v_adip,
        "vl2v-sd": vl2v_sd,
        ERM: erm,
        "linear-probe": linear_probe,
        "kd": kd,
        "image-cosine": image_cosine,
        "text-cosine": text_cosine,
        "rise-relative": rise_relative,
        "feature-mse": feature_mse,
        "simkd": simkd,
        "adip-no-align": adip_no_align,
        "adip-align-only": adip_align_only,
        "adip-joint": adip_joint,
    }
)
"""By the name that the command line knows."""

WHITE_BOX = frozenset({"vl2v-sd"})
"""Those that train the teacher's own image tower, so that the teacher must be local."""


def asks_about_images(method: Method, config: TrainingConfig) -> bool:
    """Return whether a method reads image embeddings at all: one that does not needs no image query."""
    return any(stage_asks_about_images(stage, config) for stage in method.stages)


def stage_asks_about_images(stage: Stage, config: TrainingConfig) -> bool:
    """Return whether one of its stages does."""
    return stage.objective in ASK_ABOUT_IMAGES and stage.share_of_image(config) > 0


def asks_about_texts(method: Method) -> bool:
    """Return whether a method reads the class texts, for its loss or to classify."""
    return method.head == "text" or any(stage.objective in ASK_ABOUT_TEXTS for stage in method.stages)


def check_label_weight(weight: float | None, names: Iterable[str]) -> None:
    """Refuse a label weight, as somebody named it, beside methods that would ignore it.

    Args:
        weight: `None` if nobody named it, and a preset decides.
        names: Keys of `METHODS` that were named.

    Raises:
        UsageError: It is above 0, and one of the methods cannot use it.
    """
    config = TrainingConfig()
    useful = [name for name, method in METHODS.items() if _adds_labels(method(config))]
    useless = [name for name in names if name not in useful]
    if weight and useless:
        raise UsageError(
            f"training.label_weight {weight:g} changes nothing in {', '.join(useless)}: leave it out, or train those "
            f"in a run of their own; it is for {', '.join(useful)}"
        )


def check_effects(names: Sequence[str], named: Mapping[str, Any]) -> None:
    """Refuse a hyper-parameter, as somebody named it, that every method of a run would ignore.

    Args:
        names: Keys of `METHODS`.
        named: Values by option of `TrainingConfig`.

    Raises:
        UsageError: Names the option.
    """
    for option in _HYPER_PARAMETERS:
        if option in named and not any(_reads(METHODS[name], option) for name in names):
            raise UsageError(f"training.{option} changes nothing in {', '.join(names)}: leave it out")


def _reads(method: Callable[[TrainingConfig], Method], field: str) -> bool:
    """Return whether a method is another one where the field has twice its usual value."""
    usual = TrainingConfig()
    configs = usual, usual.model_copy(update={field: 2 * getattr(usual, field)})
    first, second = ([_facts(stage, config) for stage in method(config).stages] for config in configs)
    return first != second


def _facts(stage: Stage, config: TrainingConfig) -> tuple[Stage, float | None]:
    return stage, stage.share_of_image(config) if stage.objective in ASK_ABOUT_IMAGES else None


def _adds_labels(method: Method) -> bool:
    return all(stage.objective in ADD_LABELS for stage in method.stages)


def _two_stages(name: str, config: TrainingConfig, objective: str, *, image_weight: float | None = None) -> Method:
    align = Stage(
        "align",
        ("projection",),
        objective,
        config.align_steps,
        config.align_learning_rate,
        final_weights="best",
        image_weight=image_weight,
        best_from=config.align_best_from,
        best_of_equals=config.best_of_equals,
        segments=config.align_segments,
    )
    rate = config.distill_learning_rate
    distill = _stage("distill", ("backbone",), objective, config.distill_steps, rate, config, image_weight)
    return Method(name, "text", (align, distill), interpolate=config.interpolate)


def _one_stage(
    name: str,
    config: TrainingConfig,
    stage: str,
    trains: tuple[Part, ...],
    objective: str,
    *,
    rate: float | None = None,
    head: Head = "text",
    image_weight: float | None = None,
) -> Method:
    steps = config.align_steps + config.distill_steps
    rate = config.distill_learning_rate if rate is None else rate
    only = _stage(stage, trains, objective, steps, rate, config, image_weight)
    return Method(name, head, (only,), interpolate=config.interpolate)


def _stage(
    name: str,
    trains: tuple[Part, ...],
    objective: str,
    steps: int,
    rate: float,
    config: TrainingConfig,
    image_weight: float | None = None,
) -> Stage:
    """Return a method's last stage."""
    return Stage(
        name,
        trains,
        objective,
        steps,
        rate,
        final_weights=config.final_weights,
        image_weight=image_weight,
        best_from=config.distill_best_from,
        best_of_equals=config.best_of_equals,
        segments=config.distill_segments,
    )
