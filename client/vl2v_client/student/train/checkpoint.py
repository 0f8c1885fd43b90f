"""What a stage writes: its checkpoint, refused by any other run by a fingerprint, and `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v_client.core.errors import CacheError, RunError
from vl2v_client.student.loss.methods import Stage, as_first_named
from vl2v_client.student.train.feeds import TrainingRun

_FORMAT = 1


@dataclass(frozen=True)
class StageCheckpoint:
    """Where a stage keeps what it needs to go on after a crash.

    Attributes:
        path: `None` keeps nothing.
        fingerprint: Names the stage, its settings, data and first weights; another one cannot load the file.
    """

    path: Path | None
    fingerprint: str

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` (tensors and plain values) so that a crash leaves the old file or the new one.

        Raises:
            CacheError: The disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save({"format": _FORMAT, "fingerprint": self.fingerprint, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            partial.unlink(missing_ok=True)
            raise CacheError(f"{self.path} cannot be written ({error}): make room, then run again") from error

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state that was saved, with its tensors on `device`; `None` if there is none.

        Raises:
            RunError: The file is damaged, or belongs to a run with other settings or data.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            stored = torch.load(self.path, map_location=device, weights_only=True)
            known, state = (stored["format"], stored["fingerprint"]), stored["state"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise RunError(f"{self.path} is damaged: remove it to start its stage again") from error
        if known != (_FORMAT, self.fingerprint):
            raise RunError(
                f"{self.path} belongs to a run with other settings or data: choose another output folder, or remove it"
            )
        return dict(state)


_NOT_OF_A_STAGE = ("preset", "method", "baselines", "train_views")
"""Options of training that a stage's own fields and data stand for."""


def stage_fingerprint(run: TrainingRun, stage: Stage) -> str:
    """Return the SHA-256 of all that decides a stage's result: settings, data, targets and the weights at its start."""
    settings = {name: value for name, value in run.config.result_options().items() if name not in _NOT_OF_A_STAGE}
    data = run.data
    described = [
        as_first_named(asdict(stage)),
        as_first_named(settings),
        asdict(run.classifier.input),
        data.train.pixels.shape,
        data.train.domains,
    ]
    described += [data.train.of, data.validation.of, *([] if data.fresh is None else [data.fresh.of])]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    arrays: list[NDArray[Any]] = [data.train.labels, data.validation.labels]
    arrays += [] if data.targets is None else [data.targets.vectors, data.targets.weights]
    arrays += [head.matrix for head in (run.classifier.head, data.teacher_head) if head is not None]
    arrays += [value.cpu().numpy() for value in run.classifier.student.state_dict().values()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_metrics(path: Path | None, rows: Iterable[Mapping[str, Any]], mode: Literal["w", "a"]) -> None:
    """Write rows of `metrics.jsonl`, one for each evaluation, readable while the run goes on; `None` writes nothing.

    A run that begins writes all rows so far anew: what a crash wrote after its checkpoint is dropped.

    Raises:
        CacheError: The disk is full.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error
