"""`metrics.jsonl`: one line per evaluation, readable while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import CacheError


class MetricsFile:
    """The file of a run, brought back to `rows` when it opens: what a crash wrote after its checkpoint is dropped.

    Args:
        path: `None` writes nothing.
        rows: All rows so far, of earlier stages too.
    """

    def __init__(self, path: Path | None, rows: Iterable[Mapping[str, Any]]) -> None:
        self._path = path
        self._write("w", rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        self._write("a", [row])

    def _write(self, mode: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode) as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as error:
            raise CacheError(f"{self._path} cannot be written ({error.strerror}): make room, then run again") from error
