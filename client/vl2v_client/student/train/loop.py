"""The one loop that trains every method: it reads stages and objectives as data and knows no method by name."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.progress import Notify, Progress, no_notice, silent
from vl2v_client.core.values import child_seed
from vl2v_client.student.loss.methods import Method, Stage
from vl2v_client.student.loss.objective import OBJECTIVES
from vl2v_client.student.model.classifier import VIEWS_AT_ONCE, StudentClassifier
from vl2v_client.student.train.averages import WISE_FT_GRID, Weights, between, copy_weights
from vl2v_client.student.train.closed_form import fit_projection
from vl2v_client.student.train.devices import joined_ranks, keep_freed_memory, reproducible, resolve_device
from vl2v_client.student.train.estimate import MIN_STEPS, estimate_stage
from vl2v_client.student.train.feeds import FeatureFeed, Feed, open_feed
from vl2v_client.student.train.metrics_log import MetricsLog, StepFacts
from vl2v_client.student.train.results import (
    SourceScore,
    StageCheckpoint,
    TrainingResult,
    choose_interpolation,
    score,
    stage_fingerprint,
)
from vl2v_client.student.train.stage_state import StageState, apply_weights
from vl2v_client.student.train.training_data import TrainingData
from vl2v_client.student.train.training_run import LoadedStep, TrainingRun, default_workers, load_ahead, loss_terms


def train(
    method: Method,
    classifier: StudentClassifier,
    data: TrainingData,
    config: TrainingConfig,
    *,
    folder: Path | None = None,
    progress: Progress = silent,
    notify: Notify = no_notice,
) -> TrainingResult:
    """Run a method's stages, each from where the one before left the student.

    On a CPU, two runs with one seed agree to the bit, and so does a run that was killed and called again with the
    same folder. Under `torchrun`, each process takes its part of every step, rank 0 evaluates and writes, and all
    return the same; the result is that of one process but for the order in which gradients are added.

    Args:
        method: Method to run.
        classifier: The student with its first weights; it is trained in place.
        data: Source domains only.
        config: Hyper-parameters.
        folder: Place of `checkpoints/STAGE.pt` and `metrics.jsonl`; `None` keeps nothing and cannot resume.
        progress: Gets every step, with its loss and gap to the floor, and the last validation accuracy.
        notify: Gets what each stage but the last has reached, and what a stage that trains the backbone will take.

    Raises:
        RunError: The folder holds a run with other settings or data; or another process of this run was lost.
        CacheError: The disk is full.
    """
    device = resolve_device(config.device)
    classifier.student.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    history: list[Mapping[str, Any]] = []
    results = []
    with joined_ranks() as ranks:
        run = TrainingRun(classifier, data, config, ranks)
        progress = progress if ranks.is_first else silent
        with reproducible(device):
            for stage in method.stages:
                first = copy_weights(dict(classifier.student.named_parameters())) if method.interpolate else {}
                state = _run_stage(run, stage, folder, history, progress, notify)
                by_weights = _by_weights(run, state) if stage is method.stages[-1] else {}
                state.release()
                if stage is not method.stages[-1] and ranks.is_first:
                    reached = f"{100 * state.best.rank[0]:.1f} % on source validation"
                    weights = f"the weights of step {state.best.step}"
                    notify(f"After the {stage.name} stage, {method.name} has {reached}, by {weights}.")
                history += state.history
                results.append(state.result())
                estimate = state.estimate
            share = _interpolate(run, first, state.final()) if method.interpolate else None
        if data.activations is not None:
            data.activations.clear()
        validation, logits = _score_as_used(run)
    is_as_later = device.type == "cpu" and config.evaluation_batch_size == VIEWS_AT_ONCE  # to the bit
    found = (share, by_weights, estimate, logits if is_as_later else None)
    return TrainingResult(method, classifier, validation, tuple(results), tuple(history), *found)


def _by_weights(run: TrainingRun, state: StageState) -> dict[str, float]:
    """Return what source validation says of three weights of one stage; the student is left as it is."""
    student, last = run.classifier.student, copy_weights(state.weights)
    apply_weights(student, state.swad.final().weights)
    swad = _score_as_used(run)[0].accuracy
    apply_weights(student, last)
    return {"swad": swad, "best": state.best.rank[0], "last": state.history[-1]["validation_accuracy"]}


def _interpolate(run: TrainingRun, first: Weights, final: Weights) -> float:
    """Put the student where source validation likes it best between the last stage's ends, and says where."""
    student = run.classifier.student

    def score_at(share: float) -> SourceScore:
        apply_weights(student, between(first, final, share))
        return _score_as_used(run)[0]

    share = choose_interpolation(WISE_FT_GRID, score_at)
    apply_weights(student, between(first, final, share))
    return share


def _score_as_used(run: TrainingRun) -> tuple[SourceScore, NDArray[np.float32] | None]:
    """Return source validation through the very steps that predict and evaluate, and the first process's logits."""
    validation, logits = run.data.validation, None

    def compute() -> SourceScore:
        nonlocal logits
        logits = run.classifier.logits(validation.first(), batch_size=run.config.evaluation_batch_size)
        return score(torch.from_numpy(logits), torch.from_numpy(validation.labels), validation.domains)

    return run.ranks.broadcast(compute), logits


def _run_stage(
    run: TrainingRun,
    stage: Stage,
    folder: Path | None,
    earlier: list[Mapping[str, Any]],
    progress: Progress,
    notify: Notify,
) -> StageState:
    state, checkpoint = _begin(run, stage, folder)
    written = folder if run.ranks.is_first else None
    with MetricsLog(written, event_files=run.config.tensorboard, rows=[*earlier, *state.history]) as metrics:
        if state.is_finished:
            return state
        is_long = "backbone" in stage.trains and stage.steps - state.step >= MIN_STEPS
        if run.ranks.is_first and is_long and run.data.fresh is None:
            estimate = estimate_stage(run, stage, state.step)
            state.estimate = state.estimate or estimate  # of the whole stage, in a run that goes on
            notify(str(estimate))
        feed = open_feed(run, stage, progress)
        if stage.closed_form and state.step == 0 and isinstance(feed, FeatureFeed):
            state.begin(_fit(run, stage, feed))
        workers = default_workers(run.classifier.device) if run.config.workers is None else run.config.workers
        run.classifier.student.train()
        with closing(load_ahead(feed.load, range(state.step, stage.steps), workers)) as ahead:
            _take_steps(run, state, feed, ahead, checkpoint, metrics, progress)
    return state


def _fit(run: TrainingRun, stage: Stage, feed: FeatureFeed) -> SourceScore:
    projection, pairs = run.classifier.student.projection, feed.pairs(run.batches(stage))
    fitted = fit_projection(projection, pairs, lambda: run.ranks.broadcast(lambda: _validate(run, feed)))
    run.ranks.as_first(projection)  # gradients are averaged from here on: all begin at the same weights
    return fitted


def _take_steps(
    run: TrainingRun,
    state: StageState,
    feed: Feed,
    ahead: Iterator[LoadedStep],
    checkpoint: StageCheckpoint,
    metrics: MetricsLog,
    progress: Progress,
) -> None:
    config, stage, batches = run.config, state.stage, run.batches(state.stage)
    facts = StepFacts()
    extras: Mapping[str, str] = {}
    while True:
        # once in a while: score on source validation, select, close SWAD's segment
        # after the first step and every so many from there, as DomainBed does, and after the last
        is_due = (state.step - 1) % config.evaluate_every == 0 or state.step == stage.steps
        if is_due and state.step not in (0, state.evaluated_step):
            row = state.add_evaluation(run.ranks.broadcast(lambda: _validate(run, feed)))
            metrics.add(row)
            extras = facts.after_evaluation(row)
        # once in a while: keep everything
        if run.ranks.is_first and (state.is_finished or (state.step > 0 and state.step % config.checkpoint_every == 0)):
            checkpoint.save(state.to_checkpoint())
        if state.is_finished:
            progress(stage.name, stage.steps, stage.steps, extras)
            return
        # ----------------------------------------------------------------------------------------------------------
        # a single step
        loaded = next(ahead)
        terms = loss_terms(OBJECTIVES[stage.objective], batches, loaded, feed.outputs(loaded))
        state.optimizer.zero_grad(set_to_none=True)
        # scaled, so that a shard's gradients, averaged over the processes, are those of the whole batch's mean
        (terms["loss"] * (loaded.share * run.ranks.count)).backward()  # type: ignore[no-untyped-call]
        state.descend()
        # ----------------------------------------------------------------------------------------------------------
        terms = run.ranks.mean(terms, loaded.share)
        state.add_step(terms)
        progress(stage.name, state.step, stage.steps, facts.after_step(terms))


def _begin(run: TrainingRun, stage: Stage, folder: Path | None) -> tuple[StageState, StageCheckpoint]:
    """Return a stage's first state, or the one that its checkpoint holds."""
    path = None if folder is None else folder / "checkpoints" / f"{stage.name}.pt"
    name = "" if path is None else stage_fingerprint(run, stage)
    checkpoint = StageCheckpoint(path, name, partial(stage_fingerprint, run, stage, by_place=True))
    torch.manual_seed(child_seed(run.config.seed, "torch", stage.name))
    state = StageState(stage, run.classifier.student, run.config)
    saved = checkpoint.load(run.classifier.device)
    if saved is not None:
        state.restore(saved)
    run.ranks.broadcast(lambda: state.step)  # rank 0 writes no newer checkpoint before all have read this one
    return state, checkpoint


def _validate(run: TrainingRun, feed: Feed) -> SourceScore:
    student, validation = run.classifier.student, run.data.validation
    student.eval()
    logits = run.classifier.logits_of(feed.validation_outputs())
    student.train()
    return score(logits, torch.from_numpy(validation.labels).to(logits.device), validation.domains)
