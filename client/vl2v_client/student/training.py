"""The one loop that trains every method: it reads stages and objectives as data and knows no method by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.seeds import child_seed
from vl2v_client.student.averages import WISE_FT_GRID, between
from vl2v_client.student.batches import BatchSource, TrainingData
from vl2v_client.student.checkpoint import StageCheckpoint
from vl2v_client.student.classifier import StudentClassifier
from vl2v_client.student.distributed import joined_ranks, local_device
from vl2v_client.student.feeds import Feed, LoadedStep, TrainingRun, open_feed
from vl2v_client.student.loader import default_workers, load_ahead
from vl2v_client.student.metrics import MetricsFile
from vl2v_client.student.objective import OBJECTIVES, LossTerms, Objective
from vl2v_client.student.selection import SourceScore, choose_interpolation, score
from vl2v_client.student.stage_state import StageState, apply_weights, copy_weights
from vl2v_client.student.stages import Method, Stage, as_first_named
from vl2v_client.student.swad import Weights


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        name: of the stage.
        steps: steps taken; fewer than asked for if SWAD's valley died.
        best_step: steps taken at the best evaluation on source validation.
        best_accuracy: there.
        swad_steps: first and last step of SWAD's average.
        swad_converged: false if no valley opened, and the average is the last segment's.
    """

    name: str
    steps: int
    best_step: int
    best_accuracy: float
    swad_steps: tuple[int, int]
    swad_converged: bool


@dataclass(frozen=True)
class TrainingResult:
    """A trained student.

    Attributes:
        method: what was run.
        classifier: the student with the final weights of its last stage, and its head.
        validation: exactly those weights on source validation.
        stages: in order.
        history: one row per evaluation, as in `metrics.jsonl`.
        interpolation: WiSE-FT's share of the final weights, chosen on source validation; `None` without it.
    """

    method: Method
    classifier: StudentClassifier
    validation: SourceScore
    stages: tuple[StageResult, ...]
    history: tuple[Mapping[str, Any], ...]
    interpolation: float | None = None


def train(
    method: Method,
    classifier: StudentClassifier,
    data: TrainingData,
    config: TrainingConfig,
    *,
    folder: Path | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Runs a method's stages, each from where the one before left the student.

    On a CPU, two runs with one seed agree to the bit, and so does a run that was killed and called again with the
    same folder. Under `torchrun`, each process takes its part of every step, rank 0 evaluates and writes, and all
    return the same; the result is that of one process but for the order in which gradients are added.

    Args:
        method: from `stages`.
        classifier: the student with its first weights; it is trained in place.
        data: source domains only.
        config: hyper-parameters.
        folder: for `checkpoints/STAGE.pt` and `metrics.jsonl`; `None` keeps nothing and cannot resume.
        progress: told of every step, with the last known loss, gap to its floor and validation accuracy.

    Raises:
        RunError: the folder holds a run with other settings or data; or another process of this run was lost.
        CacheError: the disk is full.
    """
    device = resolve_device(config.device)
    classifier.student.to(device)
    history: list[Mapping[str, Any]] = []
    results = []
    with joined_ranks() as ranks, _reproducible(device):
        run = TrainingRun(classifier, data, config, ranks)
        progress = progress if ranks.is_first else silent
        for stage in method.stages:
            first = copy_weights(dict(classifier.student.named_parameters())) if method.interpolate else {}
            state = _run_stage(run, stage, folder, history, progress)
            state.release()
            history += state.history
            results.append(_result(state))
        share = _interpolate(run, first, state.final()) if method.interpolate else None
        validation = _score_as_used(run)
    return TrainingResult(method, classifier, validation, tuple(results), tuple(history), share)


def _interpolate(run: TrainingRun, first: Weights, final: Weights) -> float:
    """Puts the student where source validation likes it best between the last stage's ends, and says where."""
    student = run.classifier.student

    def score_at(share: float) -> SourceScore:
        apply_weights(student, between(first, final, share))
        return _score_as_used(run)

    share = choose_interpolation(WISE_FT_GRID, score_at)
    apply_weights(student, between(first, final, share))
    return share


def _score_as_used(run: TrainingRun) -> SourceScore:
    """Source validation through the very steps that predict and evaluate."""
    validation = run.data.validation

    def compute() -> SourceScore:
        logits = run.classifier.logits(validation.pixels[:, 0], batch_size=run.config.evaluation_batch_size)
        return score(torch.from_numpy(logits), torch.from_numpy(validation.labels), validation.domains)

    return run.ranks.broadcast(compute)


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; `cuda` is this process's own; all else is torch's own name.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto" or (name == "cuda" and torch.cuda.is_available()):
        return local_device() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {name!r} here: use cpu, cuda, or auto") from error
    return device


def _run_stage(
    run: TrainingRun, stage: Stage, folder: Path | None, earlier: list[Mapping[str, Any]], progress: Progress
) -> StageState:
    state, checkpoint = _begin(run, stage, folder)
    keeps = folder is not None and run.ranks.is_first
    metrics = MetricsFile(folder / "metrics.jsonl" if folder and keeps else None, [*earlier, *state.history])
    if state.is_finished:
        return state
    feed = open_feed(run, stage, progress)
    workers = default_workers(run.classifier.device) if run.config.workers is None else run.config.workers
    run.classifier.student.train()
    with closing(load_ahead(feed.load, range(state.step, stage.steps), workers)) as ahead:
        _take_steps(run, state, feed, ahead, checkpoint, metrics, progress)
    return state


def _take_steps(
    run: TrainingRun,
    state: StageState,
    feed: Feed,
    ahead: Iterator[LoadedStep],
    checkpoint: StageCheckpoint,
    metrics: MetricsFile,
    progress: Progress,
) -> None:
    config, stage = run.config, state.stage
    batches = BatchSource(run.data, run.classifier.head, stage.share_of_image(config), config.label_weight)
    extras: Mapping[str, str] = {}
    while True:
        # once in a while: score on source validation, select, close SWAD's segment
        if _evaluates(state, config.evaluate_every):
            row = state.add_evaluation(run.ranks.broadcast(lambda: _validate(run, feed)))
            metrics.append(row)
            extras = _extras(row)
        # once in a while: keep everything
        if run.ranks.is_first and (state.is_finished or (state.step > 0 and state.step % config.checkpoint_every == 0)):
            checkpoint.save(state.to_checkpoint())
        if state.is_finished:
            progress(stage.name, stage.steps, stage.steps, extras)
            return
        # ----------------------------------------------------------------------------------------------------------
        # a single step
        loaded = next(ahead)
        terms = _loss_terms(OBJECTIVES[stage.objective], batches, loaded, feed.outputs(loaded))
        state.optimizer.zero_grad(set_to_none=True)
        run.ranks.scale_loss(terms["loss"], loaded.share).backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        # ----------------------------------------------------------------------------------------------------------
        state.add_step(run.ranks.mean(terms, loaded.share))
        progress(stage.name, state.step, stage.steps, extras)


def _loss_terms(objective: Objective, batches: BatchSource, loaded: LoadedStep, outputs: Tensor) -> LossTerms:
    answers = None if loaded.answers is None else loaded.answers[: len(loaded.rows)]
    terms = objective(batches.batch(outputs, loaded.rows, loaded.views, answers))
    if loaded.mix is None:
        return terms
    answers = None if loaded.answers is None else loaded.answers[len(loaded.rows) :]
    return loaded.mix.blend_terms(terms, objective(batches.batch(outputs, loaded.mix.rows, loaded.mix.views, answers)))


def _begin(run: TrainingRun, stage: Stage, folder: Path | None) -> tuple[StageState, StageCheckpoint]:
    """A stage's first state, or the one that its checkpoint holds."""
    path = None if folder is None else folder / "checkpoints" / f"{stage.name}.pt"
    checkpoint = StageCheckpoint(path, "" if path is None else _fingerprint(run, stage))
    torch.manual_seed(child_seed(run.config.seed, "torch", stage.name))
    state = StageState(stage, run.classifier.student, run.config)
    saved = checkpoint.load(run.classifier.device)
    if saved is not None:
        state.restore(saved)
    run.ranks.broadcast(lambda: state.step)  # rank 0 writes no newer checkpoint before all have read this one
    return state, checkpoint


def _evaluates(state: StageState, every: int) -> bool:
    """After the first step and every `every` steps from there, as DomainBed does, and after the last."""
    if state.step == 0 or state.step == state.evaluated_step:
        return False
    return (state.step - 1) % every == 0 or state.step == state.stage.steps


def _validate(run: TrainingRun, feed: Feed) -> SourceScore:
    student, validation = run.classifier.student, run.data.validation
    student.eval()
    logits = run.classifier.logits_of(feed.validation_outputs())
    student.train()
    return score(logits, torch.from_numpy(validation.labels).to(logits.device), validation.domains)


def _extras(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "validation": f"{row['validation_accuracy']:.1%}",
        "loss": f"{row['loss']:.4f}",
        "gap to floor": f"{row['gap_to_floor']:.4f}",
    }


def _result(state: StageState) -> StageResult:
    average = state.swad.final()
    return StageResult(
        name=state.stage.name,
        steps=state.step,
        best_step=state.best.step,
        best_accuracy=state.best.rank[0],
        swad_steps=(average.start_step, average.end_step),
        swad_converged=state.swad.is_converged,
    )


_NOT_OF_A_STAGE = ("preset", "method", "baselines", "train_views")
"""Options of training that a stage's own fields and data stand for."""


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic kernels on a CPU, and a random stream of the run's own; both end with the run."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _fingerprint(run: TrainingRun, stage: Stage) -> str:
    """Names everything that decides a stage's result: settings, data, targets and the weights it starts from."""
    settings = {name: value for name, value in run.config.result_options().items() if name not in _NOT_OF_A_STAGE}
    data = run.data
    described = [
        as_first_named(asdict(stage)),
        as_first_named(settings),
        asdict(run.classifier.input),
        data.train.pixels.shape,
        data.train.domains,
    ]
    described += [data.train.of, data.validation.of, *([] if data.fresh is None else [data.fresh.of])]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    arrays: list[NDArray[Any]] = [data.train.labels, data.validation.labels]
    arrays += [] if data.targets is None else [data.targets.vectors, data.targets.weights]
    arrays += [head.matrix for head in (run.classifier.head, data.teacher_head) if head is not None]
    arrays += [value.cpu().numpy() for value in run.classifier.student.state_dict().values()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
