"""The methods under their literature names: each a row of stages for the one loop, which knows none of them by name.

Every method but VL2V-SD, which has one published stage, trains for as many steps as VL2V-ADiP's two together, on the
same views, so that rows differ in what they learn from and not in how long. A view without a target trains on its
class's text alone, and in KD and VL2Lite on its label alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from vl2v_client.config.training import BestOfEquals, FinalWeights, Segments, TrainingConfig
from vl2v_client.core.errors import UsageError

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
        learning_rate: Learning rate, which `TrainingConfig.schedule` may lower on the way.
        final_weights: Weights that leave the stage: those of the best evaluation on source validation, SWAD's average,
            the exponential moving average, or the last.
        image_weight: The share of the teacher's term; `None` is the config's.
        best_from: Evaluations at earlier steps, counted from 0, are not candidates for the best.
        best_of_equals: Choice among equal accuracies. `lower_loss` takes the lower loss, then the first; `last` takes
            the last of those that no earlier evaluation surpasses, not even one before `best_from`, as published.
        segments: Which steps a segment of SWAD averages: `original` those since the last evaluation, `cumulative`
            those since step 0 or, past step 2,500, since the last whole thousand, as the published code does.
        closed_form: The projection begins at the ridge regression of the mixed targets on the features, a linear head's
            of the labels.
        freeze_until: First blocks of the backbone that stay as they are, the stem included.
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
    closed_form: bool = False
    freeze_until: int = 0

    def share_of_image(self, config: TrainingConfig) -> float:
        """Return the weight `w` of the teacher's term in this stage."""
        return config.image_weight if self.image_weight is None else self.image_weight


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a student.

    Attributes:
        head: `text` classifies by cosine to the teacher's text embeddings, `linear` by a head of its own.
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
    return config.drawn_views(config.align_steps + config.distill_steps, source_domains)


ERM = "erm"

ASK_ABOUT_IMAGES = frozenset({"image_and_text", "soft_targets", "vl2lite", "feature_mse", "simkd"})
"""The objectives that read the teacher's image embeddings."""

ASK_ABOUT_TEXTS = ASK_ABOUT_IMAGES | {"text_distances"}
"""The objectives that read its text embeddings."""

_HYPER_PARAMETERS = ("align_steps", "align_learning_rate", "distill_learning_rate", "image_weight", "freeze_until")
"""Options of training that some methods ignore."""

_ALL: tuple[Part, ...] = ("backbone", "projection")
_PROJECTION: tuple[Part, ...] = ("projection",)


def vl2v_adip(config: TrainingConfig) -> Method:
    """Align the projection to the teacher on frozen features, then distil into the backbone under it.

    As published (Addepalli et al., CVPR 2024, arXiv 2310.08255), the second stage starts from the best evaluation of
    the first, and SWAD's average over the second is the result; unlike there, that average is the student that is
    kept.
    """
    return _two_stages("VL2V-ADiP", "image_and_text", config)


def vl2v_sd(config: TrainingConfig) -> Method:
    """Distil the teacher's image tower from its frozen self: the white-box form of the same paper.

    One stage, in which the tower and its own output projection all train on the same loss as VL2V-ADiP.
    """
    stage = _stage("distill", _ALL, "image_and_text", config.distill_steps, config)
    return Method("VL2V-SD", "text", (stage,), interpolate=config.interpolate, white_box=True)


def erm(config: TrainingConfig) -> Method:
    """Return empirical risk minimisation: cross-entropy on the labels alone, as in DomainBed (arXiv 2007.01434)."""
    return _one_stage("ERM", "erm", _ALL, "cross_entropy", config, head="linear")


def _two_stages(
    name: str,
    objective: str,
    config: TrainingConfig,
    *,
    head: Head = "text",
    then: tuple[Part, ...] = ("backbone",),
    image_weight: float | None = None,
) -> Method:
    last = _stage("distill", then, objective, config.distill_steps, config, image_weight)
    align = replace(
        _stage("align", ("projection",), objective, config.align_steps, config, image_weight),
        final_weights="best",
        best_from=config.align_best_from,
        segments=config.align_segments,
    )
    return Method(name, head, (align, last), interpolate=config.interpolate)


def _one_stage(
    name: str,
    stage: str,
    trains: tuple[Part, ...],
    objective: str,
    config: TrainingConfig,
    *,
    head: Head = "text",
    image_weight: float | None = None,
) -> Method:
    only = _stage(stage, trains, objective, config.align_steps + config.distill_steps, config, image_weight)
    return Method(name, head, (only,), interpolate=config.interpolate)


def _stage(
    name: str,
    trains: tuple[Part, ...],
    objective: str,
    steps: int,
    config: TrainingConfig,
    image_weight: float | None = None,
) -> Stage:
    """Return a method's last stage; one that moves the projection alone has the align stage's learning rate."""
    return Stage(
        name,
        trains,
        objective,
        steps,
        config.align_learning_rate if trains == _PROJECTION else config.distill_learning_rate,
        final_weights=config.final_weights,
        image_weight=image_weight,
        best_from=config.distill_best_from,
        best_of_equals=config.best_of_equals,
        segments=config.distill_segments,
        closed_form=config.align == "ridge" and trains == _PROJECTION,
        freeze_until=config.freeze_until if "backbone" in trains else 0,
    )


METHODS: Mapping[str, Callable[[TrainingConfig], Method]] = MappingProxyType(
    {
        "vl2v-adip": vl2v_adip,
        "vl2v-sd": vl2v_sd,
        ERM: erm,
        # a linear head on the frozen backbone, by cross-entropy
        "linear-probe": partial(_one_stage, "linear probe", "probe", _PROJECTION, "cross_entropy", head="linear"),
        # linear probe, then fine-tuning from it (Kumar et al., ICLR 2022, arXiv 2202.10054)
        "lp-ft": partial(_two_stages, "LP-FT", "cross_entropy", head="linear", then=_ALL),
        # the same under the text classifier: fine-tuning from the zero-shot head (Wortsman et al., arXiv 2109.01903),
        # frozen here, since its texts are bought. FLYP (Goyal et al., arXiv 2212.00638) trains the text tower too.
        "text-head": partial(_two_stages, "text head", "cross_entropy", then=_ALL, image_weight=0.0),
        # knowledge distillation (Hinton et al., arXiv 1503.02531) on the teacher's zero-shot probabilities; its logits
        # are made here, of its bought image embeddings and text matrix, see `objective.soft_targets`. Its alpha is the
        # share of the softened targets: Hinton et al. found a considerably lower weight on the labels best.
        "kd": partial(_one_stage, "KD", "kd", _ALL, "soft_targets", head="linear", image_weight=0.9),
        # VL2Lite (Jang et al., CVPR 2025); the labels' share is the mean of the published one, which rises to 1/8
        "vl2lite": partial(_one_stage, "VL2Lite", "vl2lite", _ALL, "vl2lite", image_weight=15 / 16),
        # VL2V-ADiP with the image term alone
        "image-cosine": partial(_two_stages, "image cosine", "image_and_text", image_weight=1.0),
        # with the text term alone, which is RISE's absolute distance (Huang et al., arXiv 2309.12530)
        "text-cosine": partial(_two_stages, "text cosine", "image_and_text", image_weight=0.0),
        # RISE's two language terms, absolute and relative, in VL2V-ADiP's stages; no image is asked about
        "rise-relative": partial(_two_stages, "RISE relative", "text_distances", image_weight=0.0),
        # feature distillation of CLIP-KD (Yang et al., arXiv 2307.12732): mean squared error of unit vectors
        "feature-mse": partial(_two_stages, "feature MSE", "feature_mse", image_weight=1.0),
        # SimKD (Chen et al., arXiv 2203.14001): features by squared error, and the teacher's classifier. As published,
        # backbone and projection train together and no label is read. The projection here is the student's linear one,
        # not a block of convolutions on feature maps, which a vendor does not sell.
        "simkd": partial(_one_stage, "SimKD", "simkd", _ALL, "simkd", image_weight=1.0),
        # the backbone under a projection that stays as it was drawn; the projection on a backbone that stays; both
        "adip-no-align": partial(_one_stage, "ADiP, no align", "distill", ("backbone",), "image_and_text"),
        "adip-align-only": partial(_one_stage, "ADiP, align only", "align", _PROJECTION, "image_and_text"),
        "adip-joint": partial(_one_stage, "ADiP, joint", "joint", _ALL, "image_and_text"),
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


def check_additions(config: TrainingConfig, named: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse an addition to the published loss, as somebody named it, beside methods that would ignore it.

    Raises:
        UsageError: Its weight is above 0, and one of the methods cannot use it.
    """

    def is_published(stage: Stage) -> bool:
        return stage.objective == "image_and_text"

    def is_of_images(stage: Stage) -> bool:
        return is_published(stage) and stage.share_of_image(config) > 0

    for option, can_use in (("label_weight", is_published), ("soft_label_weight", is_of_images)):
        useful = [name for name, method in METHODS.items() if all(map(can_use, method(config).stages))]
        useless = [name for name in names if name not in useful]
        if named.get(option) and useless:
            raise UsageError(
                f"training.{option} {named[option]:g} changes nothing in {', '.join(useless)}: leave it out, or train "
                f"those in a run of their own; it is for {', '.join(useful)}"
            )


def check_effects(names: Sequence[str], named: Mapping[str, Any]) -> None:
    """Refuse a hyper-parameter, as somebody named it, that every method of a run would ignore.

    Raises:
        UsageError: Names the option.
    """
    usual = TrainingConfig()
    for option in _HYPER_PARAMETERS:
        other = usual.model_copy(update={option: 2 * getattr(usual, option) + 1})
        if option in named and all(_facts(METHODS[name], usual) == _facts(METHODS[name], other) for name in names):
            raise UsageError(f"training.{option} changes nothing in {', '.join(names)}: leave it out")


def _facts(method: Callable[[TrainingConfig], Method], config: TrainingConfig) -> list[tuple[Stage, float | None]]:
    """Return all that a method takes of a configuration."""
    stages = method(config).stages
    return [(one, one.share_of_image(config) if one.objective in ASK_ABOUT_IMAGES else None) for one in stages]
