"""Progress bars on the terminal: rate, remaining time, and the facts that a phase reports (money so far, loss)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from vl2v_client.cli.console import STDERR
from vl2v_contract.texts import printable

_ROOM_FOR_BARS = 100
"""Columns of a terminal; a narrower one shows counts, times and facts alone."""


class _Rate(ProgressColumn):
    """Steps a second, once there are enough to tell."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class _Facts(ProgressColumn):
    """What a phase reports; the first to give way where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(printable(task.fields["facts"]), style="dim", no_wrap=True, overflow="ellipsis")


class Bars:
    """A progress that draws one bar per phase, made when the phase first reports; or none at all.

    Args:
        progress: Bars to draw; None stays silent.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        """Draw `done` of `total`; see `core.progress.Progress`."""
        if self._progress is None:
            return
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total, facts="")
        facts = "  ".join(f"{name} {value}" for name, value in (extras or {}).items())
        self._progress.update(self._tasks[phase], completed=done, total=total, facts=facts)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Yield the terminal to oneself while the block runs, to ask a question."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        done = {task.id for task in self._progress.tasks if task.finished}
        for phase in [phase for phase, task in self._tasks.items() if task in done]:
            self._progress.remove_task(self._tasks.pop(phase))  # it stands above the question already
        try:
            yield
        finally:
            self._progress.start()


@contextmanager
def bars(*, quiet: bool) -> Iterator[Bars]:
    """Show bars on standard error while the block runs; silence when `quiet` (as under `--json`)."""
    if quiet:
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description:<18}", markup=False),
        *([BarColumn(bar_width=12, table_column=_whole())] if STDERR.width >= _ROOM_FOR_BARS else []),
        MofNCompleteColumn(table_column=_whole()),
        _Rate(table_column=_whole()),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=_whole()),
        _Facts(),
    )
    with Progress(*columns, console=STDERR) as progress:
        yield Bars(progress)


def _whole() -> Column:
    return Column(no_wrap=True)
