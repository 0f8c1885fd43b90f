"""What people are shown of the work: how far a phase is, how long it will take, and amounts of money."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vl2v_contract.texts import format_micro as format_micro  # beside a bar

Notify = Callable[[str], None]  # shows a sentence to the user


def no_notice(sentence: str) -> None:
    """Show nothing."""


class Progress(Protocol):
    """Called at each step of a phase; the command line draws bars, tests stay silent."""

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Show `done` of `total` steps of `phase`; `extras` are short facts beside the bar, such as money so far."""


def silent(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
    """Show nothing."""


def renamed(progress: Progress, rename: Callable[[str], str]) -> Progress:
    """Return a progress with every phase under another name, so that equal phases of two parts stay apart."""
    return lambda phase, done, total, extras=None: progress(rename(phase), done, total, extras)


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What a stage of training will take, by a few of its steps that were tried before it began.

    Attributes:
        stage: Name of the stage.
        steps: Steps that were left.
        seconds: Time for all of them, and for all else that the stage does.
        memory_bytes: Memory of this process, or of its GPU; `None` if the system does not tell it.
        device: Type of the device: `cpu`, `cuda`.
    """

    stage: str
    steps: int
    seconds: float
    memory_bytes: int | None
    device: str

    def __str__(self) -> str:
        """Return the estimate as a sentence."""
        needs = f"about {format_seconds(self.seconds)}"
        if self.memory_bytes is not None:
            needs += f" and {self.memory_bytes / 1e9:.1f} GB of memory"
        return f"The {self.stage} stage needs {needs} on {self.device} for {self.steps:,} steps, by a trial of two."


def format_seconds(seconds: float) -> str:
    """Return a time for people: `40 s`, `6 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
