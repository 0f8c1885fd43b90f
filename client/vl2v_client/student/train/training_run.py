"""What every step of a run needs: the student, the images that it may see, and how a step of them is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.student.loss.methods import Stage
from vl2v_client.student.model.classifier import StudentClassifier, normalised, pixel_tensor
from vl2v_client.student.train.devices import ALONE, Ranks
from vl2v_client.student.train.sampling import Mix, draw_mix, rows_by_domain, sample_batch
from vl2v_client.student.train.training_data import TrainingData

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LoadedStep:
    """What one step trains on, before the student has seen it.

    Attributes:
        rows: `[B]` of the training views, this process's shard of the step.
        views: `[B]`, which view of each row.
        mix: What each of them is blended with; `None` without mixup.
        share: Share of the whole step's views that these are; 1 in a process on its own.
        inputs: Views, or those of them that are not kept, in whatever form the feed's `outputs` takes.
        answers: What the teacher said of these views, `[B, D]`, with mixup of the partners' too, `[2 B, D]`; `None`
            if they are stored or nobody asked.
    """

    rows: Rows
    views: Rows
    mix: Mix | None
    share: float
    inputs: Tensor
    answers: EmbeddingMatrix | None = None


@dataclass(frozen=True)
class TrainingRun:
    """What every stage of a run shares: the student with its head, the images that it may see, the settings."""

    classifier: StudentClassifier
    data: TrainingData
    config: TrainingConfig
    ranks: Ranks = ALONE

    def load(self, stage: Stage, step: int, gather: Callable[[Rows, Rows], Tensor]) -> LoadedStep:
        """Load this process's shard of a step.

        Args:
            stage: Stage of the step.
            step: Number of the step, from 0.
            gather: The inputs of rows and views, `[B, ...]`; with mixup it is asked for `2 B`, the partners last.
        """
        config, shard, count = self.config, self.ranks.shard, self.data.view_count
        stream: dict[str, Any] = {"seed": config.seed, "stage": stage.name, "step": step}
        rows, views = sample_batch(self._domain_rows, views=count, batch_size=config.batch_size, **stream)
        mix = draw_mix(rows, views, alpha=config.mixup, **stream)
        own, own_views, share = shard(rows), shard(views), len(shard(rows)) / len(rows)
        if mix is None:
            return LoadedStep(own, own_views, None, share, gather(own, own_views))
        mix = Mix(shard(mix.rows), shard(mix.views), mix.share)
        inputs = gather(np.concatenate([own, mix.rows]), np.concatenate([own_views, mix.views]))
        return LoadedStep(own, own_views, mix, share, inputs)

    @cached_property
    def _domain_rows(self) -> list[Rows]:
        return rows_by_domain(self.data.train.domains)

    def forward(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return `network` on normalised inputs, as float32, under autocast if the run asks for it."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            return network(inputs).float()

    def prepared(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return views `[B, S, S, 3]` ready for the backbone; for a GPU as bytes in pinned memory, quick to copy."""
        return pixel_tensor(pixels, pinned=True) if self._is_on_gpu else self._normalised(pixel_tensor(pixels))

    def inputs(self, prepared: Tensor) -> Tensor:
        """Return what the backbone is fed, of what `prepared` gave."""
        if not self._is_on_gpu:
            return prepared
        return self._normalised(prepared.to(self.classifier.device, non_blocking=True))

    @property
    def _is_on_gpu(self) -> bool:
        return self.classifier.device.type == "cuda"

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalised(pixels, self.classifier.input, channels_last=self.config.channels_last)
