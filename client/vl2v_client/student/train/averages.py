"""Averages of weights: SWAD's, along a valley of the validation loss; the exponential moving one; and WiSE-FT's line.

SWAD (Cha et al., NeurIPS 2021, arXiv 2102.08604): the rule is that of the authors' `LossValley` (khanrc/swad), written
anew from its behaviour. Weights are averaged at every step within a *segment*, which lasts from one evaluation to the
next; the valley is an average of segments. Three traits of the rule that the paper does not spell out are kept, since
they move the result. Segments count alike, whatever their number of steps. The first segment that enters the valley
replaces the one that detected it. Until the tolerance window has filled, each evaluation adds the oldest segment again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vl2v_client.config.training import Segments

Weights = dict[str, Tensor]


def copy_weights(weights: Mapping[str, Tensor]) -> Weights:
    """Return a copy that later steps do not move."""
    return {name: value.detach().clone() for name, value in weights.items()}


@dataclass
class WeightAverage:
    """A running mean of weights, and the steps that it spans.

    Attributes:
        weights: The mean so far; empty before the first addition.
        count: Number of weights added.
        start_step: First step of the first addition, -1 before it.
        end_step: Last step of the last addition, -1 before it.
    """

    weights: Weights = field(default_factory=dict)
    count: int = 0
    start_step: int = -1
    end_step: int = -1

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor], *, start_step: int, end_step: int) -> None:
        """Take one more set of weights into the mean; the first replaces whatever is there."""
        if self.count == 0:
            self.weights, self.start_step = copy_weights(weights), start_step
        else:
            for name, mean in self.weights.items():
                mean += (weights[name].detach() - mean) / (self.count + 1)
        self.count += 1
        self.end_step = end_step

    def copy(self) -> "WeightAverage":
        """Return the average with weights that later additions do not move."""
        return replace(self, weights=copy_weights(self.weights))

    def add_segment(self, segment: "Segment") -> None:
        """Take the mean of a segment into this one."""
        average = segment.average
        self.add(average.weights, start_step=average.start_step, end_step=average.end_step)


@dataclass(frozen=True)
class Segment:
    """The mean weights of the steps up to one evaluation, and the validation loss there."""

    average: WeightAverage
    loss: float


@dataclass
class LossValley:
    """Finds the valley: it opens when the loss stops falling and closes when it has risen for good.

    Attributes:
        converge: The valley opens at a segment whose loss is the least of this many.
        tolerance: The valley closes when the least of this many losses exceeds the threshold.
        tolerance_ratio: The threshold is `1 + tolerance_ratio` times the mean loss when the valley opened.
        segments: `original`, as described above, or `cumulative`: an evaluation closes a segment without beginning
            the next one, which goes on averaging from where the closed one began, except at every whole thousand past
            step 2,500. So does the published code of VL2V-ADiP unless it is told not to.
        is_dead: The valley has closed: later steps change nothing, so training may stop.
    """

    converge: int = 3
    tolerance: int = 6
    tolerance_ratio: float = 0.3
    segments: Segments = "original"
    is_dead: bool = field(default=False, init=False)
    _current: WeightAverage = field(default_factory=WeightAverage, init=False)
    _recent: list[Segment] = field(default_factory=list, init=False)
    _valley: WeightAverage | None = field(default=None, init=False)
    _threshold: float = field(default=float("inf"), init=False)
    _converge_step: int = field(default=-1, init=False)

    @property
    def is_converged(self) -> bool:
        """The valley has opened."""
        return self._valley is not None

    def add_step(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Take the weights after `step` into the current segment."""
        self._current.add(weights, start_step=step, end_step=step)

    def add_evaluation(self, loss: float) -> None:
        """Close the current segment with the validation loss at its end."""
        closed = self._current
        begins_anew = self.segments == "original" or (closed.end_step > 2500 and closed.end_step % 1000 == 0)
        self._current = WeightAverage() if begins_anew else closed.copy()
        if self.is_dead:
            return
        self._recent.append(Segment(closed, loss))
        del self._recent[: -max(self.tolerance, self.converge)]
        if self._valley is None:
            self._try_to_open()
        elif self._window[0].average.end_step >= self._converge_step:
            self.is_dead = min(segment.loss for segment in self._window) > self._threshold
            if not self.is_dead:
                self._valley.add_segment(self._window[0])

    def final(self) -> WeightAverage:
        """Return the average over the valley, or over the last segment if none has opened.

        Raises:
            ValueError: There was no evaluation yet.
        """
        if not self._recent:
            raise ValueError("SWAD has seen no evaluation yet")
        if self._valley is None:
            return self._recent[-1].average
        valley = self._valley.copy()
        if not self.is_dead:
            left = self._window[1:]
            while left and min(segment.loss for segment in left) <= self._threshold:
                last = left.pop(0).average
                valley.add(last.weights, start_step=last.end_step, end_step=last.end_step)
        return valley

    @property
    def _window(self) -> list[Segment]:
        return self._recent[-self.tolerance :]

    def _try_to_open(self) -> None:
        last = self._recent[-self.converge :]
        losses = [segment.loss for segment in last]
        if len(last) < self.converge or losses[0] > min(losses):
            return
        self._converge_step = last[0].average.end_step
        self._threshold = sum(losses) / len(losses) * (1 + self.tolerance_ratio)
        self._valley = WeightAverage(dict(last[0].average.weights))
        for segment in self._opening_segments(last):
            self._valley.add_segment(segment)

    def _opening_segments(self, last: list[Segment]) -> Sequence[Segment]:
        """Return the segments that already belong to a valley which opens now."""
        if self.tolerance <= self.converge:
            return last[1 : 1 + self.converge - self.tolerance]
        before = self._window[: self.tolerance - self.converge + 1]
        above = [index for index, segment in enumerate(before) if segment.loss > self._threshold]
        first_below = above[-1] + 1 if above else 0
        return before[first_below + 1 :]

    def state(self) -> dict[str, Any]:
        """Return everything that a later `restore` needs, of tensors and plain values."""
        return {
            "current": vars(self._current).copy(),
            "recent": [{"average": vars(segment.average).copy(), "loss": segment.loss} for segment in self._recent],
            "valley": None if self._valley is None else vars(self._valley).copy(),
            "threshold": self._threshold,
            "converge_step": self._converge_step,
            "dead": self.is_dead,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._current = WeightAverage(**state["current"])
        self._recent = [Segment(WeightAverage(**one["average"]), one["loss"]) for one in state["recent"]]
        self._valley = None if state["valley"] is None else WeightAverage(**state["valley"])
        self._threshold = state["threshold"]
        self._converge_step = state["converge_step"]
        self.is_dead = state["dead"]


WISE_FT_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The shares of the final weights that source validation chooses from."""


@dataclass
class ExponentialMovingAverage:
    """`mean <- d mean + (1 - d) weights` after every step, with `d = min(decay, (1 + t) / (10 + t))` at step `t`.

    The smaller `d` of the first steps keeps a short run from remembering its first weights.
    """

    decay: float
    steps: int = 0
    weights: Weights = field(default_factory=dict)

    @torch.no_grad()
    def add_step(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights after a step; the first are the mean."""
        if self.steps == 0:
            self.weights = copy_weights(weights)
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, mean in self.weights.items():
            mean += (1 - decay) * (weights[name].detach() - mean)
        self.steps += 1


def between(first: Weights, last: Weights, share: float) -> Weights:
    """Return `(1 - share) * first + share * last`, exact at both ends: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""
    return {name: torch.lerp(first[name], end, share) for name, end in last.items()}
