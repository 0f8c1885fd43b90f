"""How the last stage of a run ended: which steps SWAD averaged, and what that was worth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from vl2v_client.reports.pages import percent, quoted

_VALLEYS = {
    "dead": "the valley of the validation loss was left",
    "valley": "the valley of the validation loss was not left by the last step",
    "descending": "no valley of the validation loss was found, so they are the last segment",
}
"""By SWAD's state in `metrics.jsonl`."""


@dataclass(frozen=True, slots=True)
class LastStage:
    """How the last stage of the run's method ended.

    Attributes:
        swad_steps: First and last step of SWAD's average, from 0.
        swad: SWAD's state at the end: `dead`, `valley` or `descending`.
        validation: Accuracy on source validation, 0 to 1, of the `swad`, `best` and `last` weights of this one run.
    """

    swad_steps: tuple[int, int]
    swad: Literal["dead", "valley", "descending"]
    validation: Mapping[str, float]

    def sentence(self) -> str:
        """Return which steps were averaged, and what three weights of the stage reach."""
        first, last = self.swad_steps
        steps = f"steps {first:,} to {last:,}" if first < last else f"step {last:,} alone"
        weights = ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in self.validation.items())
        window = f"SWAD averages {steps} of the last stage: {_VALLEYS[self.swad]}"
        return f"{window}. Weights of that stage on source validation: {weights}."

    def quoted(self) -> "LastStage":
        """Return the same with its names quoted for Markdown."""
        return replace(self, validation={quoted(name): share for name, share in self.validation.items()})
