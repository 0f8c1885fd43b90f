"""Everything about a running stage that changes, so that a checkpoint can hold all of it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import Diverged
from vl2v_client.core.progress import StageEstimate
from vl2v_client.student.loss.methods import Stage
from vl2v_client.student.loss.objective import per_bought
from vl2v_client.student.model.network import Student, frozen_names
from vl2v_client.student.train.averages import ExponentialMovingAverage, LossValley, Weights, copy_weights
from vl2v_client.student.train.results import SourceScore, StageResult

CURVE_POINTS = 10
"""Points of the training curve between two evaluations, each the mean over the steps since the one before."""


@dataclass
class BestWeights:
    """The weights of the best evaluation so far, by the rule of `Stage.best_of_equals`."""

    step: int = -1
    rank: tuple[float, float] = (-1.0, float("-inf"))
    weights: Weights = field(default_factory=dict)


class StageState:
    """The moving parts of one stage.

    Args:
        stage: What trains, and for how long.
        student: Network whose parts train; the others are frozen until `release`.
        config: Hyper-parameters of the run.
    """

    def __init__(self, stage: Stage, student: Student, config: TrainingConfig) -> None:
        self.stage = stage
        self.step = 0
        self.evaluated_step = -1
        self.history: list[dict[str, Any]] = []
        self.estimate: StageEstimate | None = None
        self.best = BestWeights()
        self._highest = -1.0
        self.swad = LossValley(config.converge, config.tolerance, config.tolerance_ratio, stage.segments)
        self.ema = ExponentialMovingAverage(config.ema_decay) if stage.final_weights == "ema" else None
        self._student = student
        frozen = frozen_names(student.backbone, stage.freeze_until)
        for name, parameter in student.named_parameters():
            part, _, inner = name.partition(".")
            parameter.requires_grad_(part in stage.trains and not (part == "backbone" and inner in frozen))
        self.weights = {name: value for name, value in student.named_parameters() if value.requires_grad}
        self._schedule, self._warmup = config.schedule, round(config.warmup * stage.steps)
        self.optimizer = _optimizer(self.weights.values(), stage.learning_rate, config)
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._marks: list[tuple[int, Tensor]] = []  # sums of loss and floor so far `[2]`, by the steps in them
        self._mark_every = max(1, config.evaluate_every // CURVE_POINTS)

    @property
    def is_finished(self) -> bool:
        """All steps are taken, or SWAD's valley is dead, and the last evaluation is done."""
        return self.evaluated_step == self.step and self._is_at_its_end

    def descend(self) -> None:
        """Move the weights along their gradients, at this step's learning rate."""
        share = min(1.0, (self.step + 1) / max(1, self._warmup))
        if self._schedule == "cosine" and self.step >= self._warmup:
            way = (self.step - self._warmup) / (self.stage.steps - self._warmup)
            share = (1 + math.cos(math.pi * way)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.learning_rate * share
        self.optimizer.step()

    def add_step(self, terms: Mapping[str, Tensor]) -> None:
        """Count the step that was just taken: its loss terms, and its weights for SWAD."""
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(term.detach())) + term.detach()
        self._summed += 1
        if self._summed % self._mark_every == 0:
            self._marks.append((self._summed, torch.stack((self._sums["loss"], self._sums["floor"]))))
        self.swad.add_step(self.weights, self.step)
        if self.ema is not None:
            self.ema.add_step(self.weights)
        self.step += 1

    def begin(self, validation: SourceScore) -> None:
        """Count the weights that the stage begins with, which are fitted already, as a candidate for the best."""
        self.best = BestWeights(0, validation.rank, copy_weights(self.weights))
        self._highest = validation.accuracy

    def add_evaluation(self, validation: SourceScore) -> dict[str, Any]:
        """Count an evaluation of the student as it is: selection, averages and a row of metrics, which is returned.

        Raises:
            Diverged: The loss is not finite.
        """
        means = per_bought({name: float(total) / self._summed for name, total in self._sums.items()})
        if not math.isfinite(means["loss"] + validation.loss):
            raise Diverged(
                f"the loss of stage {self.stage.name!r} is not finite at step {self.step}: "
                f"lower its learning rate ({self.stage.learning_rate:g})"
            )
        self.swad.add_evaluation(validation.loss)
        if self._counts_for_best(validation):
            self.best = BestWeights(self.step, validation.rank, copy_weights(self.weights))
        self._highest = max(self._highest, validation.accuracy)
        row = {
            "stage": self.stage.name,
            "step": self.step,
            **means,
            "gap_to_floor": means["loss"] - means["floor"],
            "curve": self._curve(),
            "validation_accuracy": validation.accuracy,
            "validation_loss": validation.loss,
            "validation_by_domain": dict(validation.by_domain),
            "swad": "dead" if self.swad.is_dead else "valley" if self.swad.is_converged else "descending",
        }
        self.history.append(row)
        self.evaluated_step = self.step
        self._sums, self._summed, self._marks = {}, 0, []
        return row

    def _curve(self) -> list[list[float]]:
        """Return `[step, loss, gap to floor]` of each point since the last evaluation."""
        before, counted, points = torch.zeros(2), 0, []
        for steps, sums in self._marks:
            now = sums.cpu()
            loss, floor = ((now - before) / (steps - counted)).tolist()
            points.append([self.step - self._summed + steps, loss, loss - floor])
            before, counted = now, steps
        return points

    def final(self) -> Weights:
        """Return the weights that leave the stage, as `stage.final_weights` says."""
        if self.stage.final_weights == "best":
            return self.best.weights
        if self.ema is not None:
            return self.ema.weights
        return copy_weights(self.weights) if self.stage.final_weights == "last" else self.swad.final().weights

    def result(self) -> StageResult:
        """Return how the stage went, once it is finished."""
        average = self.swad.final()
        return StageResult(self.step, self.best.step, (average.start_step, average.end_step))

    def _counts_for_best(self, validation: SourceScore) -> bool:
        if self._is_at_its_end and not self.best.weights:
            return True  # a stage without a candidate still leaves something
        if self.stage.best_of_equals == "last":
            is_better = validation.accuracy >= self._highest
        else:
            is_better = validation.rank > self.best.rank
        return is_better and self.step > self.stage.best_from

    @property
    def _is_at_its_end(self) -> bool:
        return self.step == self.stage.steps or (self.swad.is_dead and self.ema is None)

    def release(self) -> None:
        """Put the final weights into the student and unfreeze all of it."""
        apply_weights(self._student, self.final())
        self._student.requires_grad_(True)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return tensors and plain values; `restore` goes on from them, to the bit."""
        return {
            "step": self.step,
            "evaluated_step": self.evaluated_step,
            "history": self.history,
            "estimate": None if self.estimate is None else asdict(self.estimate),
            "best": vars(self.best),
            "highest": self._highest,
            "swad": self.swad.state(),
            "ema": None if self.ema is None else {"steps": self.ema.steps, "weights": self.ema.weights},
            "weights": {name: value.detach() for name, value in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "sums": self._sums,
            "summed": self._summed,
            "marks": self._marks,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self._student.projection.weight.is_cuda else None,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_checkpoint` gave."""
        self.step, self.evaluated_step = saved["step"], saved["evaluated_step"]
        self.history = saved["history"]
        known = saved.get("estimate")  # not in checkpoints of earlier versions
        self.estimate = None if known is None else StageEstimate(**known)
        self.best = BestWeights(**saved["best"])
        self._highest = saved["highest"]
        self.swad.restore(saved["swad"])
        if self.ema is not None:
            self.ema = replace(self.ema, **saved["ema"])
        apply_weights(self._student, saved["weights"])
        for moments in saved["optimizer"]["state"].values():
            moments["step"] = moments["step"].cpu()  # Adam would wait for a GPU's at every step
        self.optimizer.load_state_dict(saved["optimizer"])
        self._sums, self._summed = saved["sums"], saved["summed"]
        self._marks = saved.get("marks", [])  # a checkpoint of version 0.1 has none
        torch.set_rng_state(saved["random"].cpu())
        if self._student.projection.weight.is_cuda and saved["random_cuda"] is not None:  # None: it began on a CPU
            torch.cuda.set_rng_state(saved["random_cuda"].cpu())


def _optimizer(weights: Collection[nn.Parameter], learning_rate: float, config: TrainingConfig) -> torch.optim.Adam:
    if config.optimizer == "adam":
        return torch.optim.Adam(weights, lr=learning_rate, betas=config.betas, weight_decay=config.weight_decay)
    matrices = [value for value in weights if value.ndim > 1]
    vectors = [value for value in weights if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=config.betas)


@torch.no_grad()
def apply_weights(student: Student, weights: Mapping[str, Tensor]) -> None:
    """Write weights into the student's parameters of those names."""
    parameters = dict(student.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
