"""What training reads: labelled views with their targets, and a step's rows of them as its objective sees them."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.cache.store import FileContent
from vl2v_client.core.values import EmbeddingMatrix, RGBImage, Sample
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence
from vl2v_client.data.views import RENDERER_VERSION, drawn_view
from vl2v_client.local.teacher import LocalTeacher
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.student.loss.objective import Batch
from vl2v_client.student.model.classifier import TextHead
from vl2v_client.student.train.frozen_features import Activations
from vl2v_client.teacher.targets import ImageTargets
from vl2v_contract.identity import sha256_hex


@dataclass(frozen=True)
class LabelledViews:
    """`K` views of each of `N` samples.

    Attributes:
        pixels: `[N, K, S, S, 3]` uint8.
        labels: `[N]` int64.
        domains: `[N]` names.
        of: Names the pixels by the files' content, so that a run cannot resume on other ones.
        place: Names them by the files' paths and times, as `of` did in earlier versions.
        keys: Name of each view's pixels at this size, `N * K`, an image's views side by side; empty if they have none.
    """

    pixels: ViewPixels | NDArray[np.uint8]
    labels: NDArray[np.int64]
    domains: tuple[str, ...]
    of: str = ""
    place: str = ""
    keys: Sequence[bytes] = ()

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

    def first_keys(self, count: int = 1) -> list[bytes]:
        """Return the names of the views that `first` gives; none if they have none."""
        starts = range(0, len(self.keys), self.view_count)
        return [key for start in starts for key in self.keys[start : start + count]]

    def at(self, size: int) -> "LabelledViews":
        """Return the same views at another size.

        Raises:
            ValueError: These are plain pixels of another size.
        """
        if size == self.size:
            return self
        if isinstance(self.pixels, ViewPixels):
            return replace(self, pixels=self.pixels.at(size), keys=())
        raise ValueError(f"pixels of size {self.size} cannot be had at size {size}")


def labelled_views(pixels: ViewPixels, samples: Sequence[Sample], keys: Sequence[bytes] = ()) -> LabelledViews:
    """Join the pixels of samples with their labels and domains, row by row, and with the names of the pixels."""
    labels = np.array([sample.class_index for sample in samples], dtype=np.int64)
    of, domains = sha256_hex(b"".join(keys)) if keys else pixels.of, tuple(sample.domain for sample in samples)
    return LabelledViews(pixels, labels, domains, of, pixels.of, keys)


FRESH_VIEW_NUMBERS = 2**62
"""A fresh view has a number below this, drawn like a stored one's: as good as never the same twice."""


@dataclass(frozen=True)
class OnlineViews:
    """Fresh views for a local teacher, drawn and asked about when a step needs them, as the published loop does.

    Each is a function of its number, the image's content and the run's seed and recipe: the same question has the same
    answer, to the bit.
    """

    samples: Sequence[Sample]
    contents: Sequence[FileContent]
    choice: QueryChoice
    teacher: LocalTeacher

    @property
    def of(self) -> str:
        """Names all that decides pixels and answers, so that a run cannot resume on others."""
        facts = self.teacher.facts
        named = [RENDERER_VERSION, self.choice.seed, self.choice.recipe, facts.image_size, facts.weights_sha]
        named += [facts.precision, facts.preprocessing_id, *(content.file_sha for content in self.contents)]
        return sha256_hex(json.dumps(named).encode())

    def draw(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], size: int, *, ask: bool
    ) -> tuple[NDArray[np.uint8], EmbeddingMatrix | None]:
        """Render the views of those numbers of the images in those rows, and ask the teacher; called in any thread.

        A file is decoded once and rendered at both sizes, in threads on every core.

        Args:
            rows: Training rows, `[B]`.
            views: Number of the view of each, `[B]`.
            size: Width and height `S` of the pixels, whatever the teacher sees.
            ask: Ask the teacher.

        Returns:
            Pixels `[B, S, S, 3]`, and vectors `[B, D]` of unit norm if it was asked.
        """
        asked_size = self.teacher.facts.image_size
        sizes = {size, asked_size} if ask else {size}

        def render(row: int, number: int) -> dict[int, RGBImage]:
            content, image = self.contents[row], load_rgb(self.samples[row].path)
            frame = content.width, content.height
            view = drawn_view(content.file_sha, frame, number + 1, self.choice.seed, self.choice.recipe)
            return {each: render_view(image, view, each) for each in sizes}

        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter lock
            drawn = list(pool.map(render, rows.tolist(), views.tolist()))
        answers = self.teacher.encode_images(np.stack([one[asked_size] for one in drawn])) if ask else None
        return np.stack([one[size] for one in drawn]), answers


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
        features: Keeps what a frozen student says of the views; `None` keeps nothing.
        activations: Keeps what its first blocks said of them on the way, likewise.
    """

    train: LabelledViews
    validation: LabelledViews
    targets: ImageTargets | None = None
    teacher_head: TextHead | None = None
    fresh: OnlineViews | None = None
    features: FeatureStore | FeatureFolder | None = None
    activations: Activations | None = None

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


@dataclass(frozen=True)
class BatchSource:
    """Joins outputs with labels and targets.

    Attributes:
        data: Data of the run.
        head: The student's text classifier; `None` if its outputs are logits. Its rows are `txt_y`, or those of the
            data's `teacher_head`; with neither, the targets have width 0.
        image_weight: `w` of a bought view; an imputed one gets a share of it, its trust, and one with neither 0.
        label_weight: Weight of the cross-entropy on the labels, as in `Batch`.
        soft_label_weight: Weight of the divergence from the teacher's class probabilities, likewise.
    """

    data: TrainingData
    head: TextHead | None
    image_weight: float
    label_weight: float = 0.0
    soft_label_weight: float = 0.0

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
        device, targets, labels = outputs.device, self.data.targets, self.data.train.labels[rows]
        teacher = self.data.teacher_head if self.head is None else self.head
        matrix = np.zeros((0, 0), dtype=np.float32) if teacher is None else teacher.matrix
        nothing = np.zeros((len(rows), matrix.shape[1]), dtype=np.float32)
        texts = matrix[labels] if len(matrix) else nothing
        images, trust = nothing, np.zeros(len(rows), dtype=np.float32)
        if answers is not None:
            images, trust = answers, np.ones(len(rows), dtype=np.float32)
        elif targets is not None and self.data.fresh is None:
            images, trust = targets.vectors[rows, views], targets.weights[rows, views]
        weights = np.float32(self.image_weight) * trust
        return Batch(
            outputs=outputs,
            labels=torch.from_numpy(labels).to(device),
            image_targets=torch.from_numpy(images).to(device),
            text_targets=torch.from_numpy(texts).to(device),
            image_weights=torch.from_numpy(weights).to(device),
            text_matrix=torch.from_numpy(matrix).to(device),
            logit_scale=1.0 if teacher is None else teacher.logit_scale,
            logits_of=(lambda logits: logits) if self.head is None else self.head.logits,
            label_weight=self.label_weight,
            soft_label_weight=self.soft_label_weight,
        )
