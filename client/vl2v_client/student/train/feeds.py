"""Where a stage's outputs come from: pixels through the whole student, or what its frozen part said of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.student.loss.methods import Stage, stage_asks_about_images
from vl2v_client.student.loss.objective import mixed_targets
from vl2v_client.student.model.classifier import a_few_at_once, in_chunks, in_even_chunks
from vl2v_client.student.model.network import Student, compile_or_warn, cut_backbone
from vl2v_client.student.train.frozen_features import FrozenFeatures, halved
from vl2v_client.student.train.training_data import BatchSource, LabelledViews, OnlineViews
from vl2v_client.student.train.training_run import LoadedStep, Mix, Rows, TrainingRun

FEATURE_BYTES = 2**29
"""Memory for the features of a frozen backbone or of frozen blocks; more of them are computed again at each step."""


class Feed(Protocol):
    """A stage's view of student and data."""

    def load(self, step: int) -> LoadedStep:
        """Return what a step needs. Called in any thread, for later steps too, so it reads no weight that trains."""

    def outputs(self, loaded: LoadedStep) -> Tensor:
        """Return `z [B, D]` float32 of what was loaded, for the backward pass."""

    def validation_outputs(self) -> Tensor:
        """Return `z [M, D]` float32 of the validation images' first views, for evaluation."""


def open_feed(run: TrainingRun, stage: Stage, progress: Progress = silent) -> Feed:
    """Return the cheapest feed that a stage allows: what is frozen need not run at every step."""
    if run.data.fresh is not None:
        return _FreshFeed(run, stage, run.data.fresh)
    if "backbone" in stage.trains and not stage.freeze_until:
        return _PixelFeed(run, stage)
    return FeatureFeed(run, stage, progress)


class _PixelFeed:
    """Every step reads its views, and they pass through the whole student."""

    def __init__(self, run: TrainingRun, stage: Stage) -> None:
        self._run = run
        self._stage = stage
        self._network = _wrapped(run, run.classifier.student, lambda: self._student_inputs(self.load(0)))

    def load(self, step: int) -> LoadedStep:
        return self._run.load(self._stage, step, self._gather)

    def outputs(self, loaded: LoadedStep) -> Tensor:
        return self._run.forward(self._network, self._student_inputs(loaded))

    def _gather(self, rows: Rows, views: Rows) -> Tensor:
        return self._run.prepared(self._run.data.train.pixels[rows, views])

    def _student_inputs(self, loaded: LoadedStep) -> Tensor:
        return blended(self._run.inputs(loaded.inputs), loaded.mix)

    def validation_outputs(self) -> Tensor:
        run, images = self._run, self._run.data.validation.first()
        size, device = run.classifier.input.size, run.classifier.device

        def of_few(few: NDArray[np.uint8]) -> Tensor:
            return run.forward(run.classifier.student, run.inputs(run.prepared(few)))

        def outputs(cut: slice) -> Tensor:
            return a_few_at_once(of_few, images[cut], size, device)

        return torch.cat(list(in_even_chunks(outputs, len(images), run.config.evaluation_batch_size, device)))


class _FreshFeed(_PixelFeed):
    """Every step draws its views anew, whether the backbone trains or not, and asks the teacher if the stage does."""

    def __init__(self, run: TrainingRun, stage: Stage, fresh: OnlineViews) -> None:
        self._fresh = fresh
        self._frozen, _ = stage_parts(run.classifier.student, stage)
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
        self._frozen.eval()  # as where its features are computed once
        return super().outputs(loaded)


class FeatureFeed:
    """The frozen part sees the views before the first step, as many as may be kept; the others pass it at each step.

    Features of a whole backbone are kept as they are where Adam alone trains on them. Those that a closed form is
    fitted to, which other runs have use for, and activations of first blocks are rounded to half precision, kept or
    not, so that a step's inputs do not depend on what is kept.
    """

    def __init__(self, run: TrainingRun, stage: Stage, progress: Progress) -> None:
        self._run, self._stage, self._is_cut = run, stage, stage.freeze_until > 0
        self._frozen, self._rest = stage_parts(run.classifier.student, stage)
        data, train, validation = run.data, run.data.train, run.data.validation
        is_noted = data.activations is not None and data.activations.blocks == stage.freeze_until
        frozen = (run.classifier, run.config, data.features, data.activations)
        self._once = FrozenFeatures(*frozen) if stage.closed_form else None
        self._noted = FrozenFeatures(*frozen).noted if is_noted else None
        one = self._seen(validation.first()[:1])
        room, count = FEATURE_BYTES // one.nbytes, len(train) * train.view_count
        for_validation = min(len(validation), room)
        is_less_work = count <= run.config.drawn_views(stage.steps, len(set(train.domains)))
        for_train = min(count, room - for_validation) if is_less_work else 0

        def keep(views: LabelledViews, each: int, count: int, before: int) -> Tensor:
            kept, done = one.new_empty(count, *one.shape[1:]), 0
            for part in self._said_of(views, each, count):
                kept[done : done + len(part)] = part
                done += len(part)
                progress("features", before + done, for_train + for_validation)
            return kept

        run.classifier.student.eval()  # what is frozen says what it will say when the student is used
        self._train = keep(train, train.view_count, for_train, 0)
        self._validation = keep(validation, 1, for_validation, for_train)
        self._rest.train()
        wrap = partial(_wrapped, run, inputs=lambda: self._inputs(self.load(0))) if self._is_cut else run.ranks.wrap
        self._network = wrap(self._rest)

    def _said_of(self, views: LabelledViews, each: int, count: int) -> Iterator[Tensor]:
        """Yield what the frozen part says of the first `count` of `each` sample's first views, in order."""
        images, keys = views.first(each), views.first_keys(each)

        def said(cut: slice) -> Tensor:
            found = {} if self._noted is None else self._noted(keys[cut])
            missing = [place for place in range(cut.stop - cut.start) if place not in found]
            if missing:
                found.update(zip(missing, self._seen(images[cut.start + np.array(missing)]), strict=True))
            return torch.stack([found[place] for place in range(cut.stop - cut.start)])

        if self._once is None:
            yield from in_chunks(said, count, self._run.config.evaluation_batch_size, self._run.classifier.device)
        elif count:
            yield from self._once.parts(images, keys, count)

    def load(self, step: int) -> LoadedStep:
        """See `Feed`."""
        return self._run.load(self._stage, step, self._gather)

    def _gather(self, rows: Rows, views: Rows) -> Tensor:
        """Return the views that are not kept, prepared for the frozen part."""
        is_missing = self._places(rows, views) >= len(self._train)
        if not is_missing.any():
            return torch.empty(0)
        return self._run.prepared(self._run.data.train.pixels[rows[is_missing], views[is_missing]])

    def _places(self, rows: Rows, views: Rows) -> Rows:
        return rows * self._run.data.train.view_count + views

    def outputs(self, loaded: LoadedStep) -> Tensor:
        """See `Feed`."""
        return self._outputs(self._network, self._inputs(loaded))

    def _outputs(self, network: nn.Module, inputs: Tensor) -> Tensor:
        return self._run.forward(network, inputs) if self._is_cut else cast(Tensor, network(inputs))

    def _inputs(self, loaded: LoadedStep) -> Tensor:
        rows, views, mix = loaded.rows, loaded.views, loaded.mix
        if mix is not None:
            rows, views = np.concatenate([rows, mix.rows]), np.concatenate([views, mix.views])
        return blended(self._features(loaded.inputs, rows, views), mix)

    def _features(self, missing: Tensor, rows: Rows, views: Rows) -> Tensor:
        """Return the features or activations of rows and views, of which `_gather` gave those that are missing."""
        places = torch.from_numpy(self._places(rows, views)).to(self._train.device)
        if not len(missing):
            return self._trainable(self._train[places])
        is_kept = places < len(self._train)
        found = self._train.new_empty(len(places), *self._train.shape[1:])
        found[is_kept], found[~is_kept] = self._train[places[is_kept]], self._seen_of(missing)
        return self._trainable(found)

    def _trainable(self, kept: Tensor) -> Tensor:
        is_map = kept.ndim == 4 and self._run.config.channels_last
        return kept.float().contiguous(memory_format=torch.channels_last if is_map else torch.contiguous_format)

    def _seen(self, pixels: NDArray[np.uint8]) -> Tensor:
        run = self._run

        def of_few(few: NDArray[np.uint8]) -> Tensor:
            return self._seen_of(run.prepared(few))

        return a_few_at_once(of_few, pixels, run.classifier.input.size, run.classifier.device)

    @torch.no_grad()
    def _seen_of(self, prepared: Tensor) -> Tensor:
        """Return what the frozen part says, in the precision in which it is kept."""
        self._frozen.eval()
        values = self._run.forward(self._frozen, self._run.inputs(prepared))
        return halved(values) if self._is_cut or self._stage.closed_form else values

    def pairs(self, batches: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the features `[B, F]` of all training views, a block at a time, with targets of the outputs.

        They are the mixed targets `[B, D]`; for a linear head the one-hot labels `[B, C]`, times ten, so that its
        logits say almost surely which class it is.
        """
        done, each = 0, self._run.data.train.view_count
        for features in self._of_all_views():
            rows, views = np.divmod(np.arange(done, done + len(features)), each)
            done += len(features)
            batch = batches.batch(features, rows, views)
            if self._run.classifier.head is None:
                yield features, 10.0 * one_hot(batch.labels, self._run.classifier.student.projection.out_features)
            else:
                yield features, mixed_targets(batch)

    def _of_all_views(self) -> Iterator[Tensor]:
        """Yield the features `[B, F]` float32 of all training views, in order; those not in memory may be on disk."""
        train, size = self._run.data.train, self._run.config.evaluation_batch_size
        count, kept = len(train) * train.view_count, len(self._train)
        kept = kept if kept == count else kept // size * size  # blocks begin where they do without any kept
        for start in range(0, kept, size):
            yield self._trainable(self._train[start : min(start + size, kept)])
        if kept < count and self._once is not None:
            images, keys = train.first(train.view_count), train.first_keys(train.view_count)
            for part in self._once.parts(images, keys, start=kept):
                yield self._trainable(part)

    def validation_outputs(self) -> Tensor:
        """See `Feed`."""
        images = self._run.data.validation.first()

        def outputs(cut: slice) -> Tensor:
            is_kept = cut.stop <= len(self._validation)
            kept = self._validation[cut] if is_kept else self._seen(images[cut])
            return self._outputs(self._rest, self._trainable(kept))

        self._rest.eval()
        device, most = self._run.classifier.device, self._run.config.evaluation_batch_size
        found = torch.cat(list(in_even_chunks(outputs, len(images), most, device)))
        self._rest.train()
        return found


def stage_parts(student: Student, stage: Stage) -> tuple[nn.Module, nn.Module]:
    """Return the part that is frozen in a stage, and the rest, which trains on its outputs."""
    if "backbone" not in stage.trains:
        return student.backbone, student.projection
    if stage.freeze_until == 0:
        return nn.Identity(), student
    lower, upper = cut_backbone(student.backbone, stage.freeze_until)
    return lower, Student(upper, student.projection)


def _wrapped(run: TrainingRun, network: nn.Module, inputs: Callable[[], Tensor]) -> nn.Module:
    if run.config.compile:
        network = compile_or_warn(network, inputs(), bfloat16=run.config.bfloat16)
    return run.ranks.wrap(network)


def blended(inputs: Tensor, mix: Mix | None) -> Tensor:
    """Return a step's inputs or features `[B, ...]`; with mixup, of the batch and its partners `[2 B, ...]`."""
    return inputs if mix is None else mix.blend(*inputs.chunk(2))
