"""How long a stage will take, and in how much memory: a few of its passes are tried before it begins."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from vl2v_client.core.progress import StageEstimate
from vl2v_client.student.loss.methods import Stage
from vl2v_client.student.loss.objective import OBJECTIVES
from vl2v_client.student.train.feeds import FEATURE_BYTES, blended, stage_parts
from vl2v_client.student.train.frozen_features import halved
from vl2v_client.student.train.training_run import TrainingRun, loss_terms

MIN_STEPS = 50
"""Steps below which a trial would take as long as the stage."""

_Made = TypeVar("_Made")
_SCORED = 16  # images of the validation pass that is tried


def estimate_stage(run: TrainingRun, stage: Stage, first_step: int) -> StageEstimate:
    """Try a validation pass and two steps of a stage; student, optimizer and random streams stay as they are.

    Args:
        run: The run, its student as the stage begins.
        stage: Stage that trains the backbone, or a part of it.
        first_step: Step that it goes on from.
    """
    devices = [run.classifier.device] if run.classifier.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        trial = _Trial(run, stage)
        seconds = trial.seconds(first_step)
    peak_bytes = _peak_bytes(devices)
    memory_bytes = None if peak_bytes is None else peak_bytes + trial.kept_bytes
    return StageEstimate(stage.name, stage.steps - first_step, seconds, memory_bytes, run.classifier.device.type)


class _Trial:
    """A few passes through the two parts of a student, and what they say of a whole stage."""

    def __init__(self, run: TrainingRun, stage: Stage) -> None:
        self._run, self._stage = run, stage
        self._frozen, self._rest = stage_parts(run.classifier.student, stage)
        self._is_cut = stage.freeze_until > 0
        self.kept_bytes = 0

    def seconds(self, first_step: int) -> float:
        """Return the time of the stage from a step on."""
        config, train, held_out = self._run.config, self._run.data.train, len(self._run.data.validation)
        lower, upper, each_bytes = self._scoring()
        read, step = self._step(first_step)
        steps, views = self._stage.steps - first_step, len(train) * train.view_count
        looks = config.drawn_views(steps, len(set(train.domains))) * (1 if config.mixup == 0 else 2)
        passes = min(views, looks)
        if self._is_cut:
            kept = min(passes + held_out, FEATURE_BYTES // each_bytes)
            noted = min(kept, len(self._run.data.activations or ()))
            self.kept_bytes = (kept - noted) * each_bytes  # the others are in memory now
            passes = passes if kept >= passes else kept + round((1 - kept / views) * looks)
            passes = max(0, passes - noted)
        once = passes * (read + lower if self._is_cut else read)
        scored = held_out * (2 + steps // config.evaluate_every) * (upper if self._is_cut else lower + upper)
        return once + scored + 3 * held_out * (lower + upper) + steps * step

    @torch.no_grad()
    def _scoring(self) -> tuple[float, float, int]:
        """Return the seconds of one image in each part of the student, and the size of what is kept between them."""
        run = self._run
        images = run.data.validation.first()[: min(_SCORED, len(run.data.validation))]
        run.classifier.student.eval()
        pixels = run.inputs(run.prepared(images))
        self._seen(pixels)  # the first pass is slower
        lower, seen = _timed(lambda: self._seen(pixels), run)
        upper, _ = _timed(lambda: run.forward(self._rest, seen), run)
        return lower / len(images), upper / len(images), seen[0].numel() * 2

    def _step(self, first_step: int) -> tuple[float, float]:
        """Return the seconds to read a view, and those of a step without its reading and its frozen part."""
        run, stage = self._run, self._stage
        pixels, batches = run.data.train.pixels, run.batches(stage)
        read, loaded = _timed(
            lambda: run.load(stage, first_step, lambda rows, views: run.prepared(pixels[rows, views]))
        )
        run.classifier.student.train()
        with torch.no_grad():
            inputs = blended(self._seen(run.inputs(loaded.inputs)), loaded.mix)
        trained = [value for value in run.classifier.student.parameters() if value.requires_grad]

        def step() -> None:
            loss = loss_terms(OBJECTIVES[stage.objective], batches, loaded, run.forward(self._rest, inputs))["loss"]
            loss.backward()  # type: ignore[no-untyped-call]

        try:
            step()
            taken = _timed(step, run)[0] + _timed(_descent(trained), run)[0]
        finally:
            for value in trained:
                value.grad = None
        return read / len(loaded.inputs), taken

    def _seen(self, pixels: Tensor) -> Tensor:
        """Return what the frozen part says, as the rest is fed it."""
        said = self._run.forward(self._frozen, pixels)
        return halved(said).float() if self._is_cut else said


def _descent(trained: list[nn.Parameter]) -> Callable[[], object]:
    """Return an optimizer's step on copies of the weights, which takes time and memory as that of the stage will."""
    copies = [value.detach().clone().requires_grad_() for value in trained]
    for copy, value in zip(copies, trained, strict=True):
        copy.grad = None if value.grad is None else value.grad.clone()
    optimizer = torch.optim.Adam(copies, lr=0.0)
    optimizer.step()  # it makes the moments
    return optimizer.step


def _timed(work: Callable[[], _Made], run: TrainingRun | None = None) -> tuple[float, _Made]:
    """Return the seconds that some work takes, those of the run's GPU too, and what it makes."""
    start = time.perf_counter()
    made = work()
    if run is not None and run.classifier.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, made


def _peak_bytes(devices: list[torch.device]) -> int | None:
    """Return the most memory that this process has had so far, on a GPU if it uses one; `None` on Windows' CPU."""
    if devices:
        return torch.cuda.max_memory_allocated(devices[0])
    try:
        import resource  # Windows has no such module
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
