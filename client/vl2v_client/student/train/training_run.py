"""What every step of a run needs: the student, the images that it may see, and how a step of them is loaded.

Which views a step sees, and blends, is a function of `(seed, stage, step)`, so that resuming needs no sampler state.
What the next steps need is loaded by other threads while a step runs.

Mixup with mixed targets (Zhang et al., arXiv 1710.09412) blends pairs of views and what is known of them, at no query.
It is an approximation for a teacher's targets: what a teacher says of a blend is not the blend of what it says. Where
the backbone is frozen, its features are blended, since they are computed once.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.values import EmbeddingMatrix, generator
from vl2v_client.student.loss.methods import Stage
from vl2v_client.student.loss.objective import LossTerms, Objective
from vl2v_client.student.model.classifier import StudentClassifier, normalised, pixel_tensor
from vl2v_client.student.train.devices import ALONE, Ranks
from vl2v_client.student.train.training_data import BatchSource, TrainingData

Rows = NDArray[np.int64]


def rows_by_domain(domains: Sequence[str]) -> list[Rows]:
    """Return the rows of each domain, in the domains' sorted order."""
    names = np.asarray(domains)
    return [np.flatnonzero(names == domain) for domain in sorted(set(domains))]


def sample_batch(
    domain_rows: Sequence[Rows], *, views: int, batch_size: int, seed: int, stage: str, step: int
) -> tuple[Rows, Rows]:
    """Draw `batch_size` rows of every domain, with replacement, and one of the `views` stored views for each.

    Every domain has the same say, however large. Returns rows and views, `[domains * batch_size]` each.
    """
    random = generator(seed, "batch", stage, step)
    rows = np.concatenate([of_one[random.integers(0, len(of_one), batch_size)] for of_one in domain_rows])
    return rows, random.integers(0, views, len(rows))


@dataclass(frozen=True)
class Mix:
    """The other half of a step's batch.

    Attributes:
        rows: `[B]`, whom each view of the batch is blended with: the batch's own views in another order.
        views: `[B]`, likewise.
        share: Share of the batch's views in the blend, 0 to 1; their partners have the rest.
    """

    rows: Rows
    views: Rows
    share: float

    def blend(self, own: Tensor, others: Tensor) -> Tensor:
        """Return inputs or features `[B, ...]` of the batch and of its partners, blended."""
        return self.share * own + (1 - self.share) * others

    def blend_terms(self, own: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return loss terms of the blend's outputs against the batch's targets and against its partners', blended.

        Every loss that is linear in its target, as cosine and cross-entropy are, equals the one against the blended
        target. The blended floor is lower than the blend can reach, so the gap to it stays open.
        """
        return {name: self.share * value + (1 - self.share) * others[name] for name, value in own.items()}


def draw_mix(rows: Rows, views: Rows, *, alpha: float, seed: int, stage: str, step: int) -> Mix | None:
    """Return partners of a step's whole batch `[B]`, and a share from `Beta(alpha, alpha)`; `None` if alpha is 0.

    Small values of alpha leave most blends near one of the two.
    """
    if alpha == 0:
        return None
    random = generator(seed, "mixup", stage, step)
    share, partners = float(random.beta(alpha, alpha)), random.permutation(len(rows))
    return Mix(rows[partners], views[partners], share)


_Loaded = TypeVar("_Loaded")

CUDA_WORKERS = 4
"""Threads that feed one GPU, where there are as many cores."""


def load_ahead(load: Callable[[int], _Loaded], steps: Iterable[int], workers: int) -> Generator[_Loaded, None, None]:
    """Yield `load(step)` of each step, in order; each worker loads one step ahead.

    Close the iterator to stop early. What a step gets is decided by `load` and the step, so the number of workers
    changes nothing; an exception of `load` comes out in its step's turn.

    Args:
        load: Called in any thread, for several steps at a time.
        steps: Numbers of the steps in the order in which they are taken.
        workers: Threads; 0 loads each step when it is asked for.
    """
    if workers == 0:
        yield from map(load, steps)
        return
    waiting: deque[Future[_Loaded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(load, step))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def default_workers(device: torch.device) -> int:
    """Return 0 on a CPU, whose cores the step itself uses; a few beside a GPU."""
    return min(CUDA_WORKERS, os.cpu_count() or 1) if device.type == "cuda" else 0


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


def loss_terms(objective: Objective, batches: BatchSource, loaded: LoadedStep, outputs: Tensor) -> LossTerms:
    """Return the loss and its parts of the outputs `[B, D]` of a step; with mixup, of the blends."""
    answers = None if loaded.answers is None else loaded.answers[: len(loaded.rows)]
    terms = objective(batches.batch(outputs, loaded.rows, loaded.views, answers))
    if loaded.mix is None:
        return terms
    answers = None if loaded.answers is None else loaded.answers[len(loaded.rows) :]
    return loaded.mix.blend_terms(terms, objective(batches.batch(outputs, loaded.mix.rows, loaded.mix.views, answers)))


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

    def batches(self, stage: Stage) -> BatchSource:
        """Return what joins a stage's outputs with their labels and targets."""
        return BatchSource(
            self.data,
            self.classifier.head,
            stage.share_of_image(self.config),
            label_weight=self.config.label_weight,
            soft_label_weight=self.config.soft_label_weight,
        )

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
