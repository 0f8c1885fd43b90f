"""How far a call is: bars in a notebook, a line on a terminal, nothing in a file. Nothing needs to be installed."""

import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from vl2v_client.core.html_tables import html_text
from vl2v_client.core.progress import Progress, silent
from vl2v_contract.texts import printable

_SECONDS_BETWEEN = 0.2


class Phases:
    """What the phases of one call have reached; a notebook shows this object.

    Args:
        draw: Shows it anew; called as often as people can see, and at the end of each phase.
    """

    def __init__(self, draw: "Callable[[Phases], None]") -> None:
        self._draw = draw
        self._reached: dict[str, tuple[int, int, str]] = {}
        self._last = ""
        self._drawn_at_seconds = -_SECONDS_BETWEEN

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Note `done` of `total`; see `core.progress.Progress`."""
        facts = "  ".join(f"{name} {value}" for name, value in (extras or {}).items())
        self._reached[phase] = done, total, facts
        self._last = phase
        now = time.monotonic()
        if done >= total or now - self._drawn_at_seconds >= _SECONDS_BETWEEN:
            self._drawn_at_seconds = now
            self._draw(self)

    @property
    def is_done(self) -> bool:
        """Whether the phase that reported last has ended."""
        done, total, _ = self._reached[self._last]
        return done >= total

    def __str__(self) -> str:
        done, total, facts = self._reached[self._last]
        return printable(f"{self._last}: {done:,}/{total:,}  {facts}".rstrip())

    def __repr__(self) -> str:
        return "\n".join(f"{printable(phase)}: {done:,}/{total:,}" for phase, (done, total, _) in self._reached.items())

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><td>{html_text(phase)}</td><td><progress max={max(total, 1)} value={done}></progress></td>"
            f"<td>{done:,}/{total:,}</td><td>{html_text(facts)}</td></tr>"
            for phase, (done, total, facts) in self._reached.items()
        )
        return f"<table>{''.join(rows)}</table>"


def progress_display(wanted: Progress | bool) -> Progress:
    """Return the progress of one call.

    Args:
        wanted: Shown as fits the place, or not at all; or somebody's own.
    """
    if not isinstance(wanted, bool):
        return wanted
    if not wanted:
        return silent
    if _is_notebook():
        return Phases(_draw_below_cell())
    return Phases(_draw_line) if sys.stderr.isatty() else silent


def _draw_below_cell() -> Callable[[Phases], None]:
    """Return what shows the phases of one call below a notebook's cell, each time in the same place."""
    handle: Any = None

    def draw(phases: Phases) -> None:
        nonlocal handle
        if handle is None:
            handle = import_module("IPython.display").display(phases, display_id=True)
        else:
            handle.update(phases)

    return draw


def _is_notebook() -> bool:
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _draw_line(phases: Phases) -> None:
    """Write over the line before; it stays where its phase is done."""
    sys.stderr.write(f"\r\x1b[K{phases}" + ("\n" if phases.is_done else ""))
    sys.stderr.flush()
