"""What training reads: labelled views with their targets, and a step's rows of them as its objective sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.core.values import EmbeddingMatrix, Sample
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence
from vl2v_client.student.loss.objective import Batch
from vl2v_client.student.model.classifier import TextHead
from vl2v_client.teacher.targets import ImageTargets


@dataclass(frozen=True)
class LabelledViews:
    """`K` views of each of `N` samples.

    Attributes:
        pixels: `[N, K, S, S, 3]` uint8.
        labels: `[N]` int64.
        domains: `[N]` names.
        of: Names the pixels, so that a run cannot resume on other ones.
    """

    pixels: ViewPixels | NDArray[np.uint8]
    labels: NDArray[np.int64]
    domains: tuple[str, ...]
    of: str = ""

    @property
    def view_count(self) -> int:
        """`K`."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        """`S`."""
        return int(self.pixels.shape[2])

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int = 1) -> ViewSequence:
        """Return the first views of each sample one after the other, `[N * count, S, S, 3]`."""
        return ViewSequence(self.pixels, count)

    def at(self, size: int) -> "LabelledViews":
        """Return the same views at another size.

        Raises:
            ValueError: These are plain pixels of another size.
        """
        if isinstance(self.pixels, ViewPixels):
            return replace(self, pixels=self.pixels.at(size))
        if size != self.size:
            raise ValueError(f"pixels of size {self.size} cannot be had at size {size}")
        return self


def labelled_views(pixels: ViewPixels, samples: Sequence[Sample]) -> LabelledViews:
    """Join the pixels of samples with their labels and domains, row by row."""
    labels = np.array([sample.class_index for sample in samples], dtype=np.int64)
    return LabelledViews(pixels, labels, tuple(sample.domain for sample in samples), pixels.of)


FRESH_VIEW_NUMBERS = 2**62
"""A fresh view has a number below this, drawn like a stored one's: as good as never the same twice."""


class FreshViews(Protocol):
    """The views that no store holds. Called in any thread; the same question has the same answer, to the bit."""

    @property
    def of(self) -> str:
        """Names all that decides pixels and answers, so that a run cannot resume on others."""

    def draw(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], size: int, *, ask: bool
    ) -> tuple[NDArray[np.uint8], EmbeddingMatrix | None]:
        """Return the views of those numbers of the images in those training rows, and what the teacher says of them.

        Args:
            rows: Training rows, `[B]`.
            views: Number of the view of each, `[B]`.
            size: Width and height `S` of the pixels, whatever the teacher sees.
            ask: Ask the teacher.

        Returns:
            Pixels `[B, S, S, 3]`, and vectors `[B, D]` of unit norm if it was asked.
        """


@dataclass(frozen=True)
class TrainingData:
    """What a run learns and selects from; it holds nothing of the target domain.

    Attributes:
        train: Views of the source domains.
        validation: The source domains' hold-out; only its first view is read.
        targets: Targets of every view of `train`; `None` for methods that ask no teacher.
        teacher_head: The teacher's zero-shot classifier, for a linear student that learns from its probabilities;
            `None` for a student that classifies by text, whose own head it is.
        fresh: Draws new views of `train`'s images at every step, in place of its stored ones; the teacher is asked
            about them if there are `targets`.
    """

    train: LabelledViews
    validation: LabelledViews
    targets: ImageTargets | None = None
    teacher_head: TextHead | None = None
    fresh: FreshViews | None = None

    @property
    def view_count(self) -> int:
        """How many views a step may choose from, of each image."""
        return self.train.view_count if self.fresh is None else FRESH_VIEW_NUMBERS

    def at(self, size: int) -> "TrainingData":
        """Return the same data with views of another size."""
        return replace(self, train=self.train.at(size), validation=self.validation.at(size))

    def __post_init__(self) -> None:
        if min(self.train.pixels.shape[:2]) < 1 or min(self.validation.pixels.shape[:2]) < 1:
            raise ValueError("training and validation need at least one view each, bought or not")
        if self.targets is not None and self.targets.bought.shape != self.train.pixels.shape[:2]:
            raise ValueError(f"targets {self.targets.bought.shape} for views {self.train.pixels.shape[:2]}")


class BatchSource:
    """Joins outputs with labels and targets.

    Args:
        data: Data of the run.
        head: The student's text classifier; `None` if its outputs are logits. Its rows are `txt_y`, or those of the
            data's `teacher_head`; with neither, the targets have width 0.
        image_weight: `w` of a bought view; an imputed one gets a share of it, its trust, and one with neither 0.
        label_weight: Weight of the cross-entropy on the labels, as in `Batch`.
    """

    def __init__(
        self, data: TrainingData, head: TextHead | None, image_weight: float, label_weight: float = 0.0
    ) -> None:
        self._labels = data.train.labels
        self._targets = data.targets
        self._are_fresh = data.fresh is not None
        self._head = head
        teacher = data.teacher_head if head is None else head
        self._texts = np.zeros((0, 0), dtype=np.float32) if teacher is None else teacher.matrix
        self._logit_scale = 1.0 if teacher is None else teacher.logit_scale
        self._image_weight = image_weight
        self._label_weight = label_weight

    def batch(
        self, outputs: Tensor, rows: NDArray[np.int64], views: NDArray[np.int64], answers: EmbeddingMatrix | None = None
    ) -> Batch:
        """Return the batch of `outputs [B, D]` for `rows [B]` and `views [B]`.

        Args:
            outputs: Outputs of the student, `[B, D]`.
            rows: Rows of the training views.
            views: Number of the view of each row.
            answers: What the teacher said of exactly these views, `[B, D]`, if they are fresh; trusted fully.
        """
        device = outputs.device
        labels = self._labels[rows]
        nothing = np.zeros((len(rows), self._texts.shape[1]), dtype=np.float32)
        texts = self._texts[labels] if len(self._texts) else nothing
        images, trust = nothing, np.zeros(len(rows), dtype=np.float32)
        if answers is not None:
            images, trust = answers, np.ones(len(rows), dtype=np.float32)
        elif self._targets is not None and not self._are_fresh:
            images, trust = self._targets.vectors[rows, views], self._targets.weights[rows, views]
        weights = np.float32(self._image_weight) * trust
        return Batch(
            outputs=outputs,
            labels=torch.from_numpy(labels).to(device),
            image_targets=torch.from_numpy(images).to(device),
            text_targets=torch.from_numpy(texts).to(device),
            image_weights=torch.from_numpy(weights).to(device),
            text_matrix=torch.from_numpy(self._texts).to(device),
            logit_scale=self._logit_scale,
            logits_of=_same if self._head is None else self._head.logits,
            label_weight=self._label_weight,
        )


def _same(outputs: Tensor) -> Tensor:
    """Return the outputs of a linear head are its logits."""
    return outputs
