"""What training is judged by, its score on the source domains' hold-out and nothing else, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vl2v_client.core.errors import Diverged
from vl2v_client.student.loss.methods import Method
from vl2v_client.student.model.classifier import StudentClassifier


@dataclass(frozen=True, slots=True)
class SourceScore:
    """A model on source validation; every domain counts alike, as in DomainBed.

    Attributes:
        accuracy: Mean of the domains' accuracies, 0 to 1.
        loss: Mean of the domains' cross-entropies; it drives SWAD.
        by_domain: Accuracy of each.
    """

    accuracy: float
    loss: float
    by_domain: dict[str, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: accuracy, then a lower loss."""
        return self.accuracy, -self.loss


def score(logits: Tensor, labels: Tensor, domains: Sequence[str]) -> SourceScore:
    """Score logits `[N, C]` against labels `[N]` of the domains `[N]`."""
    losses = functional.cross_entropy(logits.double(), labels, reduction="none")
    right = (logits.argmax(dim=-1) == labels).double()
    accuracies, means = {}, []
    for domain in sorted(set(domains)):
        rows = torch.tensor([name == domain for name in domains], device=logits.device)
        accuracies[domain] = float(right[rows].mean())
        means.append(float(losses[rows].mean()))
    return SourceScore(sum(accuracies.values()) / len(accuracies), sum(means) / len(means), accuracies)


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        steps: Steps taken; fewer than asked for if SWAD's valley died.
        best_step: Steps taken at the best evaluation on source validation.
        swad_steps: First and last step of SWAD's average; of the last segment, if no valley opened.
    """

    steps: int
    best_step: int
    swad_steps: tuple[int, int]


@dataclass(frozen=True)
class TrainingResult:
    """A trained student.

    Attributes:
        method: Method that was run.
        classifier: Student with the final weights of its last stage, and its head.
        validation: Score of exactly those weights on source validation.
        stages: Results of the stages, in order.
        history: One row per evaluation, as in `metrics.jsonl`.
        interpolation: WiSE-FT's share of the final weights, chosen on source validation; `None` without it.
    """

    method: Method
    classifier: StudentClassifier
    validation: SourceScore
    stages: tuple[StageResult, ...]
    history: tuple[Mapping[str, Any], ...]
    interpolation: float | None = None


def choose_learning_rate(
    grid: Sequence[float], train: Callable[[float], TrainingResult]
) -> tuple[float, TrainingResult]:
    """Climb from the middle of the grid, down or up, to what source validation likes better than both neighbours.

    Args:
        grid: The learning rates in order.
        train: A whole run at one learning rate: same data, views and steps each time.

    Returns:
        The learning rate and its run.

    Raises:
        Diverged: At the middle rate and at both of its neighbours.
    """

    @cache
    def attempt(place: int) -> TrainingResult | Diverged:
        try:
            return train(grid[place])
        except Diverged as error:
            return error

    def rank(place: int) -> tuple[float, float]:
        run = attempt(place)
        return (-math.inf, -math.inf) if isinstance(run, Diverged) else run.validation.rank

    best = len(grid) // 2
    for side in (-1, 1):
        while 0 <= best + side < len(grid) and rank(best) < rank(best + side):
            best += side
    chosen = attempt(best)
    if isinstance(chosen, Diverged):
        raise chosen
    return grid[best], chosen


def choose_interpolation(grid: Sequence[float], score_at: Callable[[float], SourceScore]) -> float:
    """Return the place in the grid that source validation likes best; of equals, the first."""
    return max(grid, key=lambda share: score_at(share).rank)
