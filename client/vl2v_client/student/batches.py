"""From a step's rows and views to the batch that its objective looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.student.classifier import TextHead
from vl2v_client.student.objective import Batch
from vl2v_client.student.samples import LabelledViews
from vl2v_client.teacher.targets import ImageTargets


@dataclass(frozen=True)
class TrainingData:
    """What a run learns and selects from; it holds nothing of the target domain.

    Attributes:
        train: of the source domains.
        validation: the source domains' hold-out; only its first view is read.
        targets: of every view of `train`; `None` for methods that ask no teacher.
    """

    train: LabelledViews
    validation: LabelledViews
    targets: ImageTargets | None = None

    def __post_init__(self) -> None:
        if min(self.train.pixels.shape[:2]) < 1 or min(self.validation.pixels.shape[:2]) < 1:
            raise ValueError("training and validation need at least one view each, bought or not")
        if self.targets is not None and self.targets.bought.shape != self.train.pixels.shape[:2]:
            raise ValueError(f"targets {self.targets.bought.shape} for views {self.train.pixels.shape[:2]}")


class BatchSource:
    """Joins outputs with labels and targets.

    Args:
        data: of the run.
        head: the text classifier whose rows are `txt_y`; `None` leaves the targets at width 0.
        image_weight: `w`; a view that was not bought gets 0 and trains on its text alone.
    """

    def __init__(self, data: TrainingData, head: TextHead | None, image_weight: float) -> None:
        self._labels = data.train.labels
        self._targets = data.targets
        self._texts = None if head is None else head.matrix
        self._image_weight = image_weight

    def batch(self, outputs: Tensor, rows: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        """The batch of `outputs [B, D]` for `rows [B]` and `views [B]`."""
        device = outputs.device
        labels = self._labels[rows]
        nothing = np.zeros((len(rows), 0 if self._texts is None else self._texts.shape[1]), dtype=np.float32)
        texts = nothing if self._texts is None else self._texts[labels]
        images = nothing if self._targets is None else self._targets.vectors[rows, views]
        bought = np.zeros(len(rows), np.bool_) if self._targets is None else self._targets.bought[rows, views]
        weights = np.where(bought, self._image_weight, 0.0).astype(np.float32)
        return Batch(
            outputs=outputs,
            labels=torch.from_numpy(labels).to(device),
            image_targets=torch.from_numpy(images).to(device),
            text_targets=torch.from_numpy(texts).to(device),
            image_weights=torch.from_numpy(weights).to(device),
        )
