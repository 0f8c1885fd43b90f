"""Other averages of weights than SWAD's valley: IIDMax, the exponential moving average, and a line between two ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vl2v_client.student.swad import WeightAverage, Weights

WISE_FT_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The shares of the carried weights that source validation chooses from."""


class IIDMax:
    """SWAD's other rule: average from the best evaluation on, and keep the best such average.

    As in the authors' program (khanrc/swad, arXiv 2102.08604), written anew from its behaviour. Each segment whose end
    beats every evaluation before it begins a new average; the others join it. Every average is scored on source
    validation itself, and the best of those, of equals the first, is the result.
    """

    def __init__(self) -> None:
        self._best_accuracy = -1.0
        self._best_average_accuracy = -1.0
        self._average = WeightAverage()
        self._final = WeightAverage()

    def add_evaluation(
        self, segment: WeightAverage, accuracy: float, score_average: Callable[[Weights], float]
    ) -> None:
        """Takes the segment that ends now.

        Args:
            segment: the mean weights since the last evaluation.
            accuracy: on source validation at its end.
            score_average: the same of any weights.
        """
        if accuracy > self._best_accuracy:
            self._best_accuracy = accuracy
            self._average = WeightAverage()
        self._average.add(segment.weights, start_step=segment.start_step, end_step=segment.end_step)
        of_average = score_average(self._average.weights)
        if of_average > self._best_average_accuracy:
            self._best_average_accuracy = of_average
            self._final = self._average.copy()

    def final(self) -> WeightAverage:
        """The best average so far.

        Raises:
            ValueError: there was no evaluation yet.
        """
        if self._final.count == 0:
            raise ValueError("IIDMax has seen no evaluation yet")
        return self._final

    def state(self) -> dict[str, Any]:
        """Everything that a later `restore` needs, of tensors and plain values."""
        return {
            "best_accuracy": self._best_accuracy,
            "best_average_accuracy": self._best_average_accuracy,
            "average": vars(self._average).copy(),
            "final": vars(self._final).copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._best_accuracy = state["best_accuracy"]
        self._best_average_accuracy = state["best_average_accuracy"]
        self._average = WeightAverage(**state["average"])
        self._final = WeightAverage(**state["final"])


class ExponentialMovingAverage:
    """`mean <- d mean + (1 - d) weights` after every step, with `d = min(decay, (1 + t) / (10 + t))` at step `t`.

    The smaller `d` of the first steps keeps a short run from remembering its first weights.

    Args:
        decay: once warm, 0 to below 1.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.weights: Weights = {}

    @torch.no_grad()
    def add_step(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights after a step; the first are the mean."""
        if self.steps == 0:
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, mean in self.weights.items():
            mean += (1 - decay) * (weights[name].detach() - mean)
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """Everything that a later `restore` needs, of tensors and plain values."""
        return {"steps": self.steps, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.steps, self.weights = state["steps"], dict(state["weights"])


def between(first: Weights, last: Weights, share: float) -> Weights:
    """`(1 - share) * first + share * last`, exact at both ends: WiSE-FT's line (Wortsman et al., arXiv 2109.01903)."""
    return {name: torch.lerp(first[name], end, share) for name, end in last.items()}
