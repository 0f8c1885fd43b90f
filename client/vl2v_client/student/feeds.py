"""Where a stage's outputs come from: pixels through the whole student, or features computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.core.progress import Progress, silent
from vl2v_client.student.batches import TrainingData
from vl2v_client.student.classifier import StudentClassifier
from vl2v_client.student.inputs import student_input
from vl2v_client.student.stages import Stage, TrainingConfig

Rows = NDArray[np.int64]


class Feed(Protocol):
    """A stage's view of student and data."""

    def outputs(self, rows: Rows, views: Rows) -> Tensor:
        """`z [B, D]` float32 of training views, for the backward pass."""

    def validation_outputs(self) -> Tensor:
        """`z [M, D]` float32 of the validation images' first views, for evaluation."""


@dataclass(frozen=True)
class TrainingRun:
    """What every stage of a run shares: the student with its head, the images that it may see, the settings."""

    classifier: StudentClassifier
    data: TrainingData
    config: TrainingConfig

    def outputs_of(self, network: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8]) -> Tensor:
        """`network` on views `[B, S, S, 3]`, as float32."""
        device = self.classifier.device
        inputs = student_input(pixels, self.classifier.input, device, channels_last=self.config.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bfloat16):
            return network(inputs).float()


def open_feed(run: TrainingRun, stage: Stage, progress: Progress = silent) -> Feed:
    """The cheapest feed that a stage allows: a frozen backbone runs once over every view, not at every step."""
    if "backbone" in stage.trains:
        return _PixelFeed(run)
    return _FeatureFeed(run, progress)


class _PixelFeed:
    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def outputs(self, rows: Rows, views: Rows) -> Tensor:
        return self._run.outputs_of(self._run.classifier.student, self._run.data.train.pixels[rows, views])

    @torch.no_grad()
    def validation_outputs(self) -> Tensor:
        pixels, size = self._run.data.validation.pixels, self._run.config.evaluation_batch_size
        starts = range(0, len(pixels), size)
        student = self._run.classifier.student
        return torch.cat([self._run.outputs_of(student, pixels[start : start + size, 0]) for start in starts])


class _FeatureFeed:
    def __init__(self, run: TrainingRun, progress: Progress) -> None:
        self._projection = run.classifier.student.projection
        train, validation = run.data.train, run.data.validation
        total = len(train) * train.view_count + len(validation)
        self._train = _features(run, train.pixels, lambda done: progress("features", done, total))
        self._train = self._train.view(len(train), train.view_count, -1)
        before = total - len(validation)
        self._validation = _features(
            run, validation.pixels[:, :1], lambda done: progress("features", before + done, total)
        )

    def outputs(self, rows: Rows, views: Rows) -> Tensor:
        return cast(Tensor, self._projection(self._train[torch.from_numpy(rows), torch.from_numpy(views)]))

    @torch.no_grad()
    def validation_outputs(self) -> Tensor:
        return cast(Tensor, self._projection(self._validation))


@torch.no_grad()
def _features(run: TrainingRun, pixels: NDArray[np.uint8], tell: Callable[[int], None]) -> Tensor:
    """Features `[N * K, F]` of pixels `[N, K, S, S, 3]`, on the student's device."""
    views, size, student = pixels.shape[1], run.config.evaluation_batch_size, run.classifier.student
    student.eval()  # what a frozen backbone says is what it will say when the student is used
    parts = []
    for start in range(0, len(pixels) * views, size):
        chosen = np.arange(start, min(start + size, len(pixels) * views))
        parts.append(run.outputs_of(student.features, pixels[chosen // views, chosen % views]))
        tell(start + len(chosen))
    return torch.cat(parts)
