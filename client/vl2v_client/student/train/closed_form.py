"""Ridge regression on the features of the frozen student: a first projection, and a probe that learns from labels."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.progress import Progress, silent
from vl2v_client.student.loss.methods import Method
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.frozen_features import FrozenFeatures
from vl2v_client.student.train.results import SourceScore, TrainingResult, score
from vl2v_client.student.train.training_data import LabelledViews, TrainingData

PROBE = Method("ridge probe", "linear", ())
"""What labels alone give without any training of the backbone."""

PROBE_VIEWS = 4
"""Views of each image that it learns from, the bought ones first: a pass over more would take as long as `default`."""

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of the features' mean variance that the penalty is chosen from."""


@torch.no_grad()
def fit_projection(
    projection: nn.Linear, pairs: Iterable[tuple[Tensor, Tensor]], validate: Callable[[], SourceScore]
) -> SourceScore:
    """Set the projection to the ridge regression of targets on features; an intercept is left free.

    One eigendecomposition of `[F, F]` in float64 serves every penalty. Takes `O(n F (F + D))` for `n` pairs, and holds
    `F (F + D)` numbers beside a block of them.

    Args:
        projection: `F` features to `D` outputs; it is changed.
        pairs: Features `[B, F]` and targets `[B, D]`, a block at a time.
        validate: Scores the student as it is; the penalty with the best score is taken, the largest of equals.

    Returns:
        The score of the penalty that was taken.
    """
    width, outputs = projection.in_features, projection.out_features
    sums = torch.zeros(width + 1, width + outputs, dtype=torch.float64)  # products with the features, and with one
    count = 0
    for features, targets in pairs:
        x = features.detach().double().cpu()
        both = torch.cat([x, targets.double().cpu()], dim=1)
        sums += torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1).T @ both
        count += len(x)
    mean = sums[-1] / count
    centred = sums[:-1] / count - mean[:width, None] * mean
    values, vectors = torch.linalg.eigh(centred[:, :width])
    values, turned = values.clamp(min=0), vectors.T @ centred[:, width:]

    def apply(penalty: float) -> SourceScore:
        weights = vectors @ (turned / (values + penalty * values.mean().clamp(min=1e-12))[:, None])
        projection.weight.copy_(weights.T)
        projection.bias.copy_(mean[width:] - mean[:width] @ weights)
        return validate()

    best = max(PENALTIES, key=lambda penalty: (*apply(penalty).rank, penalty))
    return apply(best)


def fit_probe(
    classifier: StudentClassifier, data: TrainingData, config: TrainingConfig, *, progress: Progress = silent
) -> TrainingResult:
    """Set a linear head to the ridge regression of the labels, one-hot, on the features of the frozen backbone.

    Args:
        classifier: Student with its first weights; its projection, to the classes, is changed.
        data: Source domains only. The first `PROBE_VIEWS` of each image are read, or as few as the run's steps look at.
        config: Hyper-parameters of the run.
        progress: Gets every batch of views.
    """
    student, train, validation = classifier.student, data.train, data.validation
    student.to(resolve_device(config.device))
    drawn = config.drawn_views(config.align_steps + config.distill_steps, len(set(train.domains)))
    count = max(1, min(train.view_count, PROBE_VIEWS, drawn // len(train)))
    size, frozen = config.evaluation_batch_size, FrozenFeatures(classifier, config, data.features, data.activations)

    def features(views: LabelledViews, count: int) -> Iterator[Tensor]:
        images = views.first(count)
        for number, part in enumerate(frozen.parts(images, views.first_keys(count)), start=1):
            progress("probe", min(number * size, len(images)), len(images))
            yield part.float()

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        labels, done = torch.from_numpy(np.repeat(train.labels, count)), 0
        for part in features(train, count):
            yield part, one_hot(labels[done : done + len(part)], student.projection.out_features)
            done += len(part)

    held_out = torch.cat([*features(validation, 1)])
    labels = torch.from_numpy(validation.labels).to(classifier.device)

    def validate() -> SourceScore:
        return score(student.projection(held_out), labels, validation.domains)

    found = fit_projection(student.projection, pairs(), validate)
    return TrainingResult(PROBE, classifier, found, (), ())
