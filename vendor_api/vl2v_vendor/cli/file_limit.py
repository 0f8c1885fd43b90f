"""How many files the process may have open, which bounds its connections."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

_MOST_FILES: Final = 65_536
_OTHER_FILES: Final = 256


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, or to 65,536 if that is less; return the limit in force."""
    soft, hard = (_MOST_FILES if limit == resource.RLIM_INFINITY else limit for limit in _limits())
    wanted = min(hard, _MOST_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, _limits()[1]))
            soft = wanted
    return soft


def connections_for(files: int) -> int:
    """How many of `files` may be connections: all but 256 for the database, the model and the logs, or the half."""
    return files - min(_OTHER_FILES, files // 2)


def _limits() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)
