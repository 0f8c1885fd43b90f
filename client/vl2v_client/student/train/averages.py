"""Other averages of weights than SWAD's valley: the exponential moving average, and a line between two ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vl2v_client.student.train.swad import Weights

WISE_FT_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The shares of the final weights that source validation chooses from."""


class ExponentialMovingAverage:
    """`mean <- d mean + (1 - d) weights` after every step, with `d = min(decay, (1 + t) / (10 + t))` at step `t`.

    The smaller `d` of the first steps keeps a short run from remembering its first weights.

    Args:
        decay: Once warm, 0 to below 1.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.weights: Weights = {}

    @torch.no_grad()
    def add_step(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights after a step; the first are the mean."""
        if self.steps == 0:
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, mean in self.weights.items():
            mean += (1 - decay) * (weights[name].detach() - mean)
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """Return everything that a later `restore` needs, of tensors and plain values."""
        return {"steps": self.steps, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.steps, self.weights = state["steps"], dict(state["weights"])


def between(first: Weights, last: Weights, share: float) -> Weights:
    """Return `(1 - share) * first + share * last`, exact at both ends: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""
    return {name: torch.lerp(first[name], end, share) for name, end in last.items()}
