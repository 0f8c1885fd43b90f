"""A very small student and data set, for the tests of training, evaluation and export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.student.model.card import InputFormat
from vl2v_client.student.model.classifier import StudentClassifier, TextHead, new_classifier
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.training_data import LabelledViews, TrainingData
from vl2v_client.teacher.targets import ImageTargets
from vl2v_client.teacher.text_classifier import unit_rows

SIZE = 32
WIDTH = 16
CLASSES = ("red", "green", "blue")

TINY_VIT = StudentSpec(
    architecture="vit_tiny_patch16_224",
    arguments={"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
    input=InputFormat(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic"),
    features=32,
)


def text_matrix(seed: int = 0) -> EmbeddingMatrix:
    """`[3, 16]` unit rows."""
    return unit_rows(np.random.default_rng(seed).normal(size=(len(CLASSES), WIDTH)))


def text_head() -> TextHead:
    return TextHead(text_matrix(), logit_scale=20.0)


def coloured_views(
    count: int, *, views: int = 2, domains: Sequence[str] = ("art", "photo"), seed: int = 0
) -> LabelledViews:
    """`count` noisy pictures per domain, whose class is their strongest colour: easy to learn."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(count) % len(CLASSES), len(domains)).astype(np.int64)
    pixels = rng.integers(0, 120, (len(labels), views, SIZE, SIZE, 3)).astype(np.uint8)
    for row, label in enumerate(labels):
        pixels[row, ..., label] += 100
    return LabelledViews(pixels, labels, tuple(domain for domain in domains for _ in range(count)))


def teacher_targets(views: LabelledViews, seed: int = 1) -> ImageTargets:
    """Image embeddings near the text of their class."""
    noise = np.random.default_rng(seed).normal(size=(*views.pixels.shape[:2], WIDTH)) * 0.2
    vectors: NDArray[np.float32] = unit_rows(text_matrix()[views.labels][:, None] + noise)
    return ImageTargets.of_bought(vectors, np.ones(vectors.shape[:2], dtype=np.bool_))


def training_data(*, teacher: bool = True) -> TrainingData:
    train = coloured_views(12, seed=1)
    return TrainingData(train, coloured_views(6, views=1, seed=2), teacher_targets(train) if teacher else None)


def partly_bought_data() -> TrainingData:
    """`training_data`, but of every fifth view nothing was bought."""
    whole = training_data()
    assert whole.targets is not None
    bought = np.arange(whole.targets.bought.size).reshape(whole.targets.bought.shape) % 5 > 0
    return replace(whole, targets=ImageTargets.of_bought(whole.targets.vectors * bought[..., None], bought))


def fresh_classifier(*, text: bool = True, seed: int = 0) -> StudentClassifier:
    return new_classifier(TINY_VIT, text_head() if text else None, class_count=len(CLASSES), seed=seed)
