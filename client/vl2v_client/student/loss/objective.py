"""What a stage minimises: pure functions from a batch to named terms, of which `loss` is the one to descend.

Source of the distillation objective: Addepalli et al., CVPR 2024, arXiv 2310.08255, equations of VL2V-ADiP.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

KD_TEMPERATURE = 4.0
"""Hinton's T, as usual in the literature of knowledge distillation."""

VL2LITE_TEMPERATURE, VL2LITE_SCALE = 2.0, 1 / 0.07
"""Constants of the authors' program, whatever the teacher's own logit scale is."""

RISE_RELATIVE_WEIGHT = 10.0
"""Weight of the relative distance beside the absolute one, as in RISE's code."""

LossTerms = dict[str, Tensor]
"""Scalars by name; `loss` is always there."""


@dataclass(frozen=True)
class Batch:
    """All that an objective may look at, for `B` views.

    Attributes:
        outputs: `z [B, D]`, or the logits `[B, C]` of a linear head.
        labels: `[B]` int64.
        image_targets: `[B, D]` unit, zero where nothing was bought.
        text_targets: `txt_y [B, D]` unit.
        image_weights: `[B]`, the weight `w` of each view's image term; 0 where nothing was bought.
        text_matrix: `[C, D]` unit, `txt_c` of every class; width 0 if no teacher was asked.
        logits_of: Outputs `[B, ...]` to the student's logits `[B, C]`.
        label_weight: Weight of the cross-entropy on the labels beside the published loss; 0 is as published.
        soft_label_weight: The same of the divergence from the teacher's class probabilities.
    """

    outputs: Tensor
    labels: Tensor
    image_targets: Tensor
    text_targets: Tensor
    image_weights: Tensor
    text_matrix: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    logit_scale: float = 1.0
    logits_of: Callable[[Tensor], Tensor] = lambda outputs: outputs
    label_weight: float = 0.0
    soft_label_weight: float = 0.0


Objective = Callable[[Batch], LossTerms]


def image_and_text(batch: Batch) -> LossTerms:
    """Return the published loss, `-(w cos(z, img) + (1 - w) cos(z, txt_y))`, and how far it is above its floor.

    `floor` is `-mean |m|` of the batch's mixed targets `m = w img + (1 - w) txt_y`; no student can go below it.
    """
    weights = batch.image_weights
    images = -functional.cosine_similarity(batch.outputs, batch.image_targets, dim=-1)
    texts = -functional.cosine_similarity(batch.outputs, batch.text_targets, dim=-1)
    loss = (weights * images + (1 - weights) * texts).mean()
    terms = {
        "loss": loss,
        **_where_bought("image", images, weights),
        "text": texts.mean(),
        "floor": -mixed_targets(batch).norm(dim=-1).mean(),
    }
    if batch.label_weight:
        labels = functional.cross_entropy(batch.logits_of(batch.outputs), batch.labels)
        terms |= {"loss": terms["loss"] + batch.label_weight * labels, "labels": labels}
    if batch.soft_label_weight:
        soft = _class_divergence(batch)
        added = batch.soft_label_weight * (weights * soft).mean()
        terms |= {"loss": terms["loss"] + added, **_where_bought("soft", soft, weights)}
    return terms


def cross_entropy(batch: Batch) -> LossTerms:
    """Compute ERM's loss on the logits of the student's head, linear or text; its floor is zero."""
    loss = functional.cross_entropy(batch.logits_of(batch.outputs), batch.labels)
    return {"loss": loss, "floor": torch.zeros_like(loss)}


def soft_targets(batch: Batch) -> LossTerms:
    """Compute KD: `(1 - a) CE(s, y) + a T^2 KL(softmax(t / T) || softmax(s / T))`, with `a` each view's image weight.

    `s` are the student's logits and `t = logit_scale * cos(img, txt_c)` the teacher's, which a bias common to all
    classes would not change. A view that was not bought trains on its label alone. Hinton et al., arXiv 1503.02531.
    """
    weights, student = batch.image_weights, batch.logits_of(batch.outputs)
    teacher = batch.logit_scale * batch.image_targets @ batch.text_matrix.T
    soft = _softened_divergence(student, teacher, KD_TEMPERATURE)
    hard = functional.cross_entropy(student, batch.labels, reduction="none")
    loss = ((1 - weights) * hard + weights * soft).mean()
    return {"loss": loss, **_where_bought("soft", soft, weights), "hard": hard.mean(), "floor": torch.zeros_like(loss)}


def vl2lite(batch: Batch) -> LossTerms:
    """Compute VL2Lite, `(1 - a) CE(s, y) + a (L1 + D) / 2`, averaged, with `a` each view's image weight.

    `L1` is the mean over the width of `|z/|z| - img|`, and `D = T^2 / 2 KL(softmax(p(img)) || softmax(p(z)))` with
    `p(v)_c = cos(v, txt_c) / (0.07 T)`. Jang et al., CVPR 2025, as their program (github.com/jsjangAI/VL2Lite)
    computes it. There the share of the labels rises over training from 0 to 1/8; here it is constant. There two
    networks condense `img` and `txt_c` to the width of the student's features, and a linear head classifies; here the
    student's projection leads to the teacher's width, and the texts classify.
    """
    weights, z = batch.image_weights, functional.normalize(batch.outputs, dim=-1)
    images = (z - batch.image_targets).abs().mean(dim=-1)
    soft = _class_divergence(batch)
    hard = functional.cross_entropy(batch.logits_of(batch.outputs), batch.labels, reduction="none")
    loss = ((1 - weights) * hard + weights * (images + soft) / 2).mean()
    bought = _where_bought("image", images, weights) | _where_bought("soft", soft, weights)
    return {"loss": loss, **bought, "hard": hard.mean(), "floor": torch.zeros_like(loss)}


def _class_divergence(batch: Batch) -> Tensor:
    """Return VL2Lite's divergence from the teacher's class probabilities, `D` of `vl2lite`, `[B]`."""
    z = functional.normalize(batch.outputs, dim=-1)
    student, teacher = (VL2LITE_SCALE * vectors @ batch.text_matrix.T for vectors in (z, batch.image_targets))
    return _softened_divergence(student, teacher, VL2LITE_TEMPERATURE) / 2


def _softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(softmax(teacher / T) || softmax(student / T))` of logits `[B, C]`, `[B]`."""
    targets = functional.log_softmax(teacher / temperature, dim=-1)
    predicted = functional.log_softmax(student / temperature, dim=-1)
    return functional.kl_div(predicted, targets, reduction="none", log_target=True).sum(dim=-1) * temperature**2


def text_distances(batch: Batch) -> LossTerms:
    """Compute RISE, `1 - cos(z, txt_y) + 10 MSE(softmax_c cos(z, txt_c), softmax_c cos(txt_y, txt_c))`, averaged.

    The first term is its absolute distance, the second its relative one. RISE's anchors `txt_c` are prompts of each
    source domain; here they are the class prompts, which every run buys anyway. Huang et al., arXiv 2309.12530.
    """
    anchors = batch.text_matrix
    absolute = 1 - functional.cosine_similarity(batch.outputs, batch.text_targets, dim=-1)
    student = (functional.normalize(batch.outputs, dim=-1) @ anchors.T).softmax(dim=-1)
    teacher = (batch.text_targets @ anchors.T).softmax(dim=-1)
    relative = (student - teacher).square().mean(dim=-1)
    loss = (absolute + RISE_RELATIVE_WEIGHT * relative).mean()
    return {"loss": loss, "absolute": absolute.mean(), "relative": relative.mean(), "floor": torch.zeros_like(loss)}


def feature_mse(batch: Batch) -> LossTerms:
    """Compute CLIP-KD's feature distillation, `w |z/|z| - img|^2 + (1 - w) |z/|z| - txt_y|^2`, averaged.

    On unit vectors this is `2 + 2 loss` of `image_and_text`: the same descent, twice as steep, which Adam evens out.
    Yang et al., arXiv 2307.12732.
    """
    floors = 2 - 2 * mixed_targets(batch).norm(dim=-1)
    return _squared_distance(batch, functional.normalize(batch.outputs, dim=-1), floors)


def simkd(batch: Batch) -> LossTerms:
    """Compute SimKD, `w |z - img|^2 + (1 - w) |z - txt_y|^2`, averaged, on `z` as it is: length counts.

    Chen et al., CVPR 2022, arXiv 2203.14001.
    """
    weights, mixed = batch.image_weights, mixed_targets(batch)
    lengths = weights * batch.image_targets.square().sum(dim=-1) + (1 - weights) * batch.text_targets.square().sum(-1)
    return _squared_distance(batch, batch.outputs, lengths - mixed.square().sum(dim=-1))


def _squared_distance(batch: Batch, z: Tensor, floors: Tensor) -> LossTerms:
    weights = batch.image_weights
    images = (z - batch.image_targets).square().sum(dim=-1)
    texts = (z - batch.text_targets).square().sum(dim=-1)
    return {
        "loss": (weights * images + (1 - weights) * texts).mean(),
        **_where_bought("image", images, weights),
        "text": texts.mean(),
        "floor": floors.mean(),
    }


def mixed_targets(batch: Batch) -> Tensor:
    """Return `m = w img + (1 - w) txt_y`, `[B, D]`."""
    weights = batch.image_weights[:, None]
    return weights * batch.image_targets + (1 - weights) * batch.text_targets


def _where_bought(name: str, values: Tensor, weights: Tensor) -> LossTerms:
    """Return a term of bought views alone, as a mean over all, beside their share `bought`: both average over parts."""
    bought = (weights > 0).to(values.dtype)
    return {name: (bought * values).mean(), "bought": bought.mean()}


def per_bought(means: Mapping[str, float]) -> dict[str, float]:
    """Turn averaged terms of bought views into means over these views; 0 if none was bought."""
    share = means.get("bought") or 1.0
    return {name: value / share if name in ("image", "soft") else value for name, value in means.items()}


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "image_and_text": image_and_text,
        "cross_entropy": cross_entropy,
        "soft_targets": soft_targets,
        "vl2lite": vl2lite,
        "text_distances": text_distances,
        "feature_mse": feature_mse,
        "simkd": simkd,
    }
)
"""By the name in `Stage.objective`."""
