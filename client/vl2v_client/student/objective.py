"""What a stage minimises: pure functions from a batch to named terms, of which `loss` is the one to descend.

Source of the distillation objective: Addepalli et al., CVPR 2024, arXiv 2310.08255, equations of VL2V-ADiP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
    """

    outputs: Tensor
    labels: Tensor
    image_targets: Tensor
    text_targets: Tensor
    image_weights: Tensor


Objective = Callable[[Batch], LossTerms]


def image_term(z: Tensor, image_targets: Tensor) -> Tensor:
    """`-cos(z, img)`, `[B]`."""
    return -functional.cosine_similarity(z, image_targets, dim=-1)


def text_term(z: Tensor, text_targets: Tensor) -> Tensor:
    """`-cos(z, txt_y)`, `[B]`."""
    return -functional.cosine_similarity(z, text_targets, dim=-1)


def image_and_text(batch: Batch) -> LossTerms:
    """The published loss, `-(w cos(z, img) + (1 - w) cos(z, txt_y))`, and how far it is above its floor.

    `floor` is `-mean |m|` of the batch's mixed targets `m = w img + (1 - w) txt_y`; no student can go below it.
    """
    weights = batch.image_weights
    images, texts = image_term(batch.outputs, batch.image_targets), text_term(batch.outputs, batch.text_targets)
    loss = (weights * images + (1 - weights) * texts).mean()
    mixed = weights[:, None] * batch.image_targets + (1 - weights[:, None]) * batch.text_targets
    bought = (weights > 0).to(images.dtype)
    return {
        "loss": loss,
        "image": (bought * images).sum() / bought.sum().clamp(min=1),
        "text": texts.mean(),
        "floor": -mixed.norm(dim=-1).mean(),
    }


def one_target(z: Tensor, mixed: Tensor) -> Tensor:
    """The same loss in its one-target form, `-|m| cos(z, m)`, averaged over `[B, D]`: a scalar."""
    return -(functional.normalize(z, dim=-1) * mixed).sum(dim=-1).mean()


def cross_entropy(batch: Batch) -> LossTerms:
    """ERM's loss on the logits of a linear head; its floor is zero."""
    loss = functional.cross_entropy(batch.outputs, batch.labels)
    return {"loss": loss, "floor": torch.zeros_like(loss)}


OBJECTIVES: Mapping[str, Objective] = {"image_and_text": image_and_text, "cross_entropy": cross_entropy}
"""By the name that a stage carries."""
