"""What people are shown of the work: how far a phase is, and amounts of money."""

from collections.abc import Callable, Mapping
from typing import Protocol

from vl2v_contract.texts import format_micro as format_micro  # beside a bar


class Progress(Protocol):
    """Called at each step of a phase; the command line draws bars, tests stay silent."""

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Show `done` of `total` steps of `phase`; `extras` are short facts beside the bar, such as money so far."""


def silent(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
    """Show nothing."""


def renamed(progress: Progress, rename: Callable[[str], str]) -> Progress:
    """Return a progress with every phase under another name, so that equal phases of two parts stay apart."""
    return lambda phase, done, total, extras=None: progress(rename(phase), done, total, extras)
