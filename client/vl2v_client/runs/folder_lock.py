"""One process at a time in a folder, and what is said of one that cannot be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vl2v_client.core.errors import CacheError, RunError


@contextmanager
def locked(path: Path, *, waits: bool = False) -> Iterator[None]:
    """Keep every other process out of a folder, once one that is in it is done if this one `waits`.

    Raises:
        RunError: Another process is at work in it.
        CacheError: The folder cannot be written.
    """
    with writing(path):
        try:
            lock = FileLock(path / ".lock").acquire(blocking=waits)
        except Timeout as error:
            raise RunError(f"another process is at work in {path}: wait for it, or use another folder") from error
    with lock:
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of an error of the block that it cannot write a folder.

    Raises:
        CacheError: In its place.
    """
    try:
        yield
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): use another folder") from error
