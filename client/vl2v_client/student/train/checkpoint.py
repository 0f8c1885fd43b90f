"""Checkpoints: one file per stage, written whole or not at all, refused by any other run."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vl2v_client.core.errors import CacheError, RunError

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
