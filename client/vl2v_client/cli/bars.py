"""How far the work is, on standard error: a bar for each phase in a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from vl2v_client.cli.console import STDERR
from vl2v_client.core.progress import Progress, format_seconds, silent
from vl2v_contract.texts import printable

LINE_EVERY_SECONDS = 10.0
_WIDE = 100
"""Columns from which a terminal shows bars too: a narrower one shows counts, times and facts alone."""
_NAME, _BAR, _FIGURES = 18, 12, 32
"""Columns of a phase's name, of its bar, and of count, speed and time with the spaces between."""


def rate(steps_per_second: float) -> str:
    """Return a speed for people: `31/s`, `3.1/s`, or `12 s each` where a step takes long."""
    if steps_per_second >= 10:
        return f"{steps_per_second:,.0f}/s"
    return f"{steps_per_second:.1f}/s" if steps_per_second >= 0.5 else f"{1 / steps_per_second:,.0f} s each"


class _Rate(ProgressColumn):
    """Steps a second, once there are enough to tell."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(rate(speed) if speed else "", style="progress.data.speed")


class Bars:
    """A progress that draws one bar per phase, made when the phase first reports.

    Args:
        progress: Draws the bars.
        room: Columns for facts beside a bar whose phase has a name of usual length.
    """

    def __init__(self, progress: RichProgress, room: int) -> None:
        self._progress, self._room = progress, room
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Draw `done` of `total`; see `core.progress.Progress`."""
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total, facts="")
        facts = _fitting(extras or {}, self._room - max(0, len(phase) - _NAME))
        self._progress.update(self._tasks[phase], completed=done, total=total, facts=printable(facts))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Yield the terminal to oneself while the block runs, to ask a question."""
        self._progress.stop()
        done = {task.id for task in self._progress.tasks if task.finished}
        for phase in [phase for phase, task in self._tasks.items() if task in done]:
            self._progress.remove_task(self._tasks.pop(phase))  # it stands above the question already
        try:
            yield
        finally:
            self._progress.start()


@dataclass
class _Phase:
    """When a phase began, from where, and whether its end is written."""

    began: float
    first: int
    is_done: bool = False


class Lines:
    """A progress for a file or a pipe: a line at each phase's end, and every ten seconds until then.

    Args:
        write: Takes a line.
        clock: Seconds that only grow.
        every: Seconds between lines.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        every: float = LINE_EVERY_SECONDS,
    ) -> None:
        self._write, self._clock, self._every = write, clock, every
        self._phases: dict[str, _Phase] = {}
        self._written_at = clock()
        self._lock = Lock()

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Write a line if one is due; see `core.progress.Progress`."""
        with self._lock:
            now = self._clock()
            state = self._phases.get(phase)
            if state is None or (state.is_done and done < total):  # the same phase again, of another purchase
                state = self._phases[phase] = _Phase(now, done)
            is_end = done >= total and not state.is_done
            if is_end or (not state.is_done and now - self._written_at >= self._every):
                self._write(_line(phase, done, total, now - state.began, done - state.first, extras))
                self._written_at = now
            state.is_done = done >= total

    def paused(self) -> nullcontext[None]:
        """Return a block without lines, which nobody overwrites anyway."""
        return nullcontext()


def _line(phase: str, done: int, total: int, seconds: float, counted: int, extras: Mapping[str, str] | None) -> str:
    """Return one line: how far, how fast, and how long still, or how long it took."""
    speed = counted / seconds if seconds >= 1 and counted else None
    parts = [f"{phase}: {done:,} of {total:,}"]
    parts += [rate(speed)] if speed else []
    if done >= total:
        parts += [f"took {format_seconds(seconds)}"] if seconds >= 1 else []
    elif speed:
        parts.append(f"{format_seconds((total - done) / speed)} left")
    parts += [f"{name} {value}" for name, value in (extras or {}).items()]
    return ", ".join(parts)


def _fitting(extras: Mapping[str, str], room: int) -> str:
    """Return as many of the facts, the first first, as fit whole."""
    shown = ""
    for name, value in extras.items():
        longer = f"{shown}  {name} {value}" if shown else f"{name} {value}"
        if len(longer) > room:
            break
        shown = longer
    return shown


@contextmanager
def bars(*, quiet: bool) -> Iterator[Progress]:
    """Show bars or lines on standard error while the block runs; silence when `quiet` (as under `--json`)."""
    if quiet:
        yield silent
        return
    if not STDERR.is_terminal:
        yield Lines(partial(STDERR.print, soft_wrap=True))
        return
    whole, is_wide = partial(Column, no_wrap=True), STDERR.width >= _WIDE
    room = STDERR.width - _NAME - _FIGURES - (_BAR + 1 if is_wide else 0)
    columns = (
        TextColumn(f"{{task.description:<{_NAME}}}", markup=False, table_column=whole()),
        *([BarColumn(bar_width=_BAR, table_column=whole())] if is_wide else []),
        MofNCompleteColumn(table_column=whole()),
        _Rate(table_column=whole()),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=whole()),
        TextColumn("{task.fields[facts]}", style="dim", markup=False, table_column=whole()),
    )
    with RichProgress(*columns, console=STDERR) as progress:
        yield Bars(progress, room)
