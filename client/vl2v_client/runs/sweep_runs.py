"""The runs of a sweep as values that may be sent to any process: each knows its place, and where its answers lie."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.reports.report import RunReport, read_report
from vl2v_client.runs.settings import RunSettings, SweepSettings


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep. It may be sent to another process, or to another host that sees the same files.

    Attributes:
        key: Target, seed and method.
        settings: Settings of the run, with absolute paths.
        place: Its run folder.
        sweep: Folder of the sweep, with what was bought.
        threads: Threads of PyTorch on a CPU: as configured, or those that the process that bought had.
    """

    key: tuple[str, int, str]
    settings: RunSettings
    place: Path
    sweep: Path
    threads: int

    @property
    def answers(self) -> Path:
        """Folder of a local teacher's answers, which the runs of a target share."""
        return self.place.parents[1] / "answers"

    def report(self) -> RunReport | None:
        """Return the run's report if it is done: the sweep's settings and the place decide what it ran with."""
        try:
            return read_report(self.place)
        except RunError:
            return None


def describe_runs(settings: SweepSettings, sweep: Path, threads: int) -> list[SweepRun]:
    """Return the runs of a sweep, by target, seed and method."""
    absolute = _with_absolute_paths(settings.run)
    return [
        SweepRun(
            (target, seed, method),
            absolute.with_method(method, target_domain=target, seed=seed),
            sweep.absolute() / target / f"seed{seed}" / method,
            sweep.absolute(),
            absolute.training.threads or threads,
        )
        for target, seed, method in product(settings.targets, settings.seeds, settings.methods)
    ]


def _with_absolute_paths(run: RunSettings) -> RunSettings:
    """Return the same settings for a process that works in another folder."""

    def absolute(options: Any, *names: str) -> Any:
        found = {name: getattr(options, name) for name in names}
        return options.replace(**{name: path.absolute() for name, path in found.items() if path is not None})

    purchase = absolute(run.config.purchase, "local_weights")
    if (teacher := purchase.local_teacher) is not None and teacher.endswith(".json"):
        purchase = purchase.replace(local_teacher=str(Path(teacher).absolute()))
    data, student = absolute(run.config.data, "root"), absolute(run.config.student, "weights")
    config = run.config.replace(data=data, purchase=purchase, student=student)
    weights = run.student.weights
    return replace(
        run, config=config, student=replace(run.student, weights=None if weights is None else weights.absolute())
    )


@dataclass(frozen=True)
class Shard:
    """Every `count`-th run of a sweep, from the one at `index`, which begins at 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that a text such as `0/2` names.

        Raises:
            UsageError: It names none.
        """
        index, slash, count = text.partition("/")
        if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
            return cls(int(index), int(count))
        raise UsageError(f"{text!r} is no part of a sweep: give buy, merge, or a share such as 0/2 or 1/2")

    def of(self, runs: Sequence[SweepRun]) -> Sequence[SweepRun]:
        """Return its runs."""
        return runs[self.index :: self.count]


def remove_answers(runs: Sequence[SweepRun]) -> None:
    """Remove what a local teacher answered, once all runs are done."""
    for run in runs:
        shutil.rmtree(run.answers, ignore_errors=True)
