"""Where a stage's outputs come from: pixels through the whole student, or features computed once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import EmbeddingMatrix, PixelSource
from vl2v_client.student.loss.methods import Stage, stage_asks_about_images
from vl2v_client.student.loss.objective import mixed_targets
from vl2v_client.student.model.classifier import StudentClassifier, in_chunks, normalised, pixel_tensor, student_input
from vl2v_client.student.model.network import compile_or_warn
from vl2v_client.student.train.devices import ALONE, Ranks
from vl2v_client.student.train.sampling import Mix, draw_mix, rows_by_domain, sample_batch
from vl2v_client.student.train.training_data import BatchSource, FreshViews, TrainingData

Rows = NDArray[np.int64]

FEATURE_BYTES = 2**30
"""Memory for the features of a frozen backbone; more of them are computed again at each step."""


@dataclass(frozen=True)
class LoadedStep:
    """What one step trains on, before the student has seen it.

    Attributes:
        rows: `[B]` of the training views, this process's shard of the step.
        views: `[B]`, which view of each row.
        mix: What each of them is blended with; `None` without mixup.
        share: Share of the whole step's views that these are; 1 in a process on its own.
        inputs: Views or features, in whatever form the feed's `outputs` takes.
        answers: What the teacher said of these views, `[B, D]`, with mixup of the partners' too, `[2 B, D]`; `None`
            if they are stored or nobody asked.
    """

    rows: Rows
    views: Rows
    mix: Mix | None
    share: float
    inputs: Tensor
    answers: EmbeddingMatrix | None = None


class Feed(Protocol):
    """A stage's view of student and data."""

    def load(self, step: int) -> LoadedStep:
        """Return what a step needs. Called in any thread, for later steps too, so it reads no weight that trains."""

    def outputs(self, loaded: LoadedStep) -> Tensor:
        """Return `z [B, D]` float32 of what was loaded, for the backward pass."""

    def validation_outputs(self) -> Tensor:
        """Return `z [M, D]` float32 of the validation images' first views, for evaluation."""


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

    def outputs_of(self, network: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8]) -> Tensor:
        """Return `network` on views `[B, S, S, 3]`, as float32."""
        device, channels_last = self.classifier.device, self.config.channels_last
        return self.forward(network, student_input(pixels, self.classifier.input, device, channels_last=channels_last))

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


def open_feed(run: TrainingRun, stage: Stage, progress: Progress = silent) -> Feed:
    """Return the cheapest feed that a stage allows: a frozen backbone need not run at every step."""
    if run.data.fresh is not None:
        return _FreshFeed(run, stage, run.data.fresh)
    if "backbone" in stage.trains:
        return _PixelFeed(run, stage)
    return FeatureFeed(run, stage, progress)


class _PixelFeed:
    """Every step reads its views, and they pass through the whole student."""

    def __init__(self, run: TrainingRun, stage: Stage) -> None:
        self._run = run
        self._stage = stage
        network = run.classifier.student
        if run.config.compile:
            inputs = self._student_inputs(self.load(0))
            self._network = run.ranks.wrap(compile_or_warn(network, inputs, bfloat16=run.config.bfloat16))
        else:
            self._network = run.ranks.wrap(network)

    def load(self, step: int) -> LoadedStep:
        return self._run.load(self._stage, step, self._gather)

    def outputs(self, loaded: LoadedStep) -> Tensor:
        return self._run.forward(self._network, self._student_inputs(loaded))

    def _gather(self, rows: Rows, views: Rows) -> Tensor:
        return self._run.prepared(self._run.data.train.pixels[rows, views])

    def _student_inputs(self, loaded: LoadedStep) -> Tensor:
        return _blended(self._run.inputs(loaded.inputs), loaded.mix)

    def validation_outputs(self) -> Tensor:
        run, images = self._run, self._run.data.validation.first()

        def outputs(cut: slice) -> Tensor:
            return run.outputs_of(run.classifier.student, images[cut])

        return torch.cat(list(in_chunks(outputs, len(images), run.config.evaluation_batch_size, run.classifier.device)))


class _FreshFeed(_PixelFeed):
    """Every step draws its views anew, whether the backbone trains or not, and asks the teacher if the stage does."""

    def __init__(self, run: TrainingRun, stage: Stage, fresh: FreshViews) -> None:
        self._fresh = fresh
        self._asks = run.data.targets is not None and stage_asks_about_images(stage, run.config)
        super().__init__(run, stage)

    def load(self, step: int) -> LoadedStep:
        answers: EmbeddingMatrix | None = None

        def gather(rows: Rows, views: Rows) -> Tensor:
            nonlocal answers
            pixels, answers = self._fresh.draw(rows, views, self._run.data.train.size, ask=self._asks)
            return self._run.prepared(pixels)

        return replace(self._run.load(self._stage, step, gather), answers=answers)

    def outputs(self, loaded: LoadedStep) -> Tensor:
        if "backbone" not in self._stage.trains:
            self._run.classifier.student.backbone.eval()  # as where its features are computed once
        return super().outputs(loaded)


class FeatureFeed:
    """The frozen backbone sees every view before the first step; or each step's, if those are fewer or all too many."""

    def __init__(self, run: TrainingRun, stage: Stage, progress: Progress) -> None:
        self._run = run
        self._stage = stage
        self._projection = run.classifier.student.projection
        self._network = run.ranks.wrap(self._projection)
        train, validation = run.data.train, run.data.validation.first()
        views = train.first(train.view_count if self._keeps_all(len(train) * train.view_count) else 0)
        total = len(views) + len(validation)
        self._train: Tensor | None = None
        if len(views):
            self._train = _features(run, views, lambda done: progress("features", done, total))
            self._train = self._train.view(len(train), train.view_count, -1)
        self._validation = _features(run, validation, lambda done: progress("features", len(views) + done, total))

    def _keeps_all(self, views: int) -> bool:
        config, domains = self._run.config, set(self._run.data.train.domains)
        is_less_work = views <= self._stage.steps * config.batch_size * len(domains)
        return is_less_work and views * self._projection.in_features * 4 <= FEATURE_BYTES

    def load(self, step: int) -> LoadedStep:
        """See `Feed`."""
        return self._run.load(self._stage, step, self._gather)

    def _gather(self, rows: Rows, views: Rows) -> Tensor:
        if self._train is None:
            return self._run.prepared(self._run.data.train.pixels[rows, views])
        return self._train[torch.from_numpy(rows), torch.from_numpy(views)]

    def outputs(self, loaded: LoadedStep) -> Tensor:
        """See `Feed`."""
        features = loaded.inputs if self._train is not None else self._features_of(loaded.inputs)
        return cast(Tensor, self._network(_blended(features, loaded.mix)))

    def pairs(self, batches: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the features `[B, F]` of all training views, a block at a time, with targets of the outputs.

        They are the mixed targets `[B, D]`; for a linear head the one-hot labels `[B, C]`, times ten, so that its
        logits say almost surely which class it is.
        """
        train, size = self._run.data.train, self._run.config.evaluation_batch_size
        places = np.arange(len(train) * train.view_count)
        for start in range(0, len(places), size):
            rows, views = np.divmod(places[start : start + size], train.view_count)
            inputs = self._gather(rows, views)
            features = inputs if self._train is not None else self._features_of(inputs)
            batch = batches.batch(features, rows, views)
            if self._run.classifier.head is None:
                yield features, 10.0 * one_hot(batch.labels, self._projection.out_features)
            else:
                yield features, mixed_targets(batch)

    @torch.no_grad()
    def _features_of(self, prepared: Tensor) -> Tensor:
        student = self._run.classifier.student
        student.backbone.eval()
        return self._run.forward(student.features, self._run.inputs(prepared))

    @torch.no_grad()
    def validation_outputs(self) -> Tensor:
        """See `Feed`."""
        return cast(Tensor, self._projection(self._validation))


def _blended(inputs: Tensor, mix: Mix | None) -> Tensor:
    return inputs if mix is None else mix.blend(*inputs.chunk(2))


def _features(run: TrainingRun, images: PixelSource, tell: Callable[[int], None]) -> Tensor:
    """Return features `[M, F]` of images, on the student's device."""
    size, student = run.config.evaluation_batch_size, run.classifier.student
    student.eval()  # what a frozen backbone says is what it will say when the student is used

    def outputs(cut: slice) -> Tensor:
        return run.outputs_of(student.features, images[cut])

    parts, done = [], 0
    for part in in_chunks(outputs, len(images), size, run.classifier.device):
        parts.append(part)
        done += len(part)
        tell(done)
    return torch.cat(parts)
