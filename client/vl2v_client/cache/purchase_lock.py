"""Purchases on one cache take turns: a lock file beside it, held by the kernel, so that no crash leaves it locked.

What one purchase has sent and not yet received looks to another like something lost: it would ask the vendor for it
too early, hear that it was never paid, and take it back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vl2v_client.core.errors import CacheError


@contextmanager
def purchase_lock(cache_path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the turn while the block runs; `waiting` is told if another purchase has it.

    The file stays behind: removing it would let two processes lock two files of one name.

    Raises:
        CacheError: The lock file cannot be made or locked.
    """
    path = Path(f"{cache_path.resolve()}.lock")  # one lock, by whichever link the cache is named
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CacheError(
            f"{path} cannot be made: {error.strerror}; change the permissions, or name another file with purchase.cache"
        ) from error
    try:
        _lock(descriptor, path, waiting)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, waiting: Callable[[], None]) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise CacheError(f"{path} cannot be locked: {error.strerror}; keep purchase.cache on a local disk") from error
