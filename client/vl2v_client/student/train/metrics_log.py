"""Where a stage writes what it measures while it trains: `metrics.jsonl`, event files for TensorBoard, and the bar."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from vl2v_client.core.errors import CacheError, UsageError

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"
_READ_EVERY_SECONDS = 0.1

Row = Mapping[str, Any]
Scalar = tuple[str, int, float]
"""Name, step of its stage, and value."""


def check_event_files(wanted: bool) -> None:
    """Refuse event files that cannot be written, before anything is bought.

    Raises:
        UsageError: The package `tensorboard` is missing.
    """
    if wanted and find_spec("tensorboard") is None:
        raise UsageError(
            "training.tensorboard needs the package tensorboard: install it with `pip install tensorboard`, or leave "
            "the option out; metrics.jsonl and report.html have the same curves"
        )


class MetricsLog:
    """Rows of `metrics.jsonl`, one for each evaluation, readable while the run goes on, and event files if wished.

    A run that begins or goes on writes all rows so far anew: what a crash wrote after its checkpoint is dropped.

    Args:
        folder: Folder of the method; `None` writes nothing.
        event_files: Whether to write event files for TensorBoard too, in a folder beside.
        rows: All rows so far.

    Raises:
        CacheError: The disk is full.
    """

    def __init__(self, folder: Path | None, *, event_files: bool, rows: Iterable[Row]) -> None:
        self._path = None if folder is None else folder / METRICS_FILE
        self._events = _open_events(folder / EVENTS_FOLDER) if folder is not None and event_files else None
        self._write(list(rows), "w")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()

    def add(self, row: Row) -> None:
        """Write the row of an evaluation.

        Raises:
            CacheError: The disk is full.
        """
        self._write([row], "a")

    def _write(self, rows: list[Row], mode: str) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode) as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            if self._events is not None:
                for name, step, value in (scalar for row in rows for scalar in scalars(row)):
                    self._events.add_scalar(name, value, step)
                self._events.flush()
        except OSError as error:
            raise CacheError(f"{self._path} cannot be written ({error.strerror}): make room, then run again") from error


def scalars(row: Row) -> Iterator[Scalar]:
    """Yield what an event file says of an evaluation: the training curve since the one before, and the evaluation."""
    stage, step = row["stage"], row["step"]
    for at, loss, gap in row.get("curve") or [(step, row["loss"], row["gap_to_floor"])]:
        yield f"{stage}/loss", int(at), loss
        yield f"{stage}/gap to floor", int(at), gap
    yield f"{stage}/validation accuracy", step, row["validation_accuracy"]
    yield f"{stage}/validation loss", step, row["validation_loss"]
    for domain, accuracy in row["validation_by_domain"].items():
        yield f"{stage}/validation accuracy of {domain}", step, accuracy


def _open_events(folder: Path) -> Any:
    """Return a writer of event files into a folder, without those that an earlier call left there."""
    from torch.utils.tensorboard import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))


class StepFacts:
    """What stands beside the bar: the last step's loss and its gap to the floor, and the last evaluation.

    The loss is read ten times a second at most, as often as a bar is drawn, since reading waits for a GPU.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._read_at = clock, float("-inf")
        self._loss = self._gap = math.nan
        self._accuracy: float | None = None

    def after_step(self, terms: Mapping[str, Tensor]) -> Mapping[str, str]:
        """Return the facts once a step is taken, from its loss terms."""
        now = self._clock()
        if now - self._read_at >= _READ_EVERY_SECONDS:
            self._loss = float(terms["loss"].detach())
            self._gap = self._loss - float(terms["floor"])
            self._read_at = now
        return self._facts()

    def after_evaluation(self, row: Row) -> Mapping[str, str]:
        """Return the facts once the student is evaluated; the loss is the mean since the evaluation before."""
        self._loss, self._gap, self._accuracy = row["loss"], row["gap_to_floor"], row["validation_accuracy"]
        return self._facts()

    def _facts(self) -> Mapping[str, str]:
        """Return the facts, the most wanted first: a narrow terminal has no room for the last."""
        validation = {} if self._accuracy is None else {"validation": f"{self._accuracy:.1%}"}
        gap = {} if self._gap == self._loss else {"gap to floor": f"{self._gap:.4f}"}  # a floor of 0 is no news
        return {"loss": f"{self._loss:.4f}", **validation, **gap}
