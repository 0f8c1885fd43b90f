"""One server per SQLite database: a lock file beside it, held by the kernel, so that no crash leaves it locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from vl2v_vendor.domain.errors import VendorError


class ServerAlreadyRunning(VendorError):
    """Another server process holds the database."""


class DatabaseReplaced(VendorError):
    """The database file is being replaced, or is to be replaced while somebody works on it."""


@contextmanager
def in_use(database: Path, *, alone: bool = False) -> Iterator[None]:
    """Work on a SQLite database, with others or alone.

    Who opens a file that is being replaced makes a log for the old one, which SQLite would play into the new one.

    Args:
        database: the file; the lock is one beside it, which stays behind.
        alone: keep all others away.

    Raises:
        DatabaseReplaced: others are at work, or somebody alone.
        VendorError: the lock file cannot be made here.
    """
    path = Path(f"{database}.use")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # Opened to read: whichever user makes it first, the others need no right to write it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise VendorError(f"{path} cannot be made ({error.strerror}); run this as the vendor's own user") from error
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            other = "a command is at work on it" if alone else "`vl2v-vendor ledger restore` is replacing it"
            raise DatabaseReplaced(f"{database} is in use: {other}; try again once that has ended") from error
        yield
    finally:
        os.close(descriptor)


class ServerLock:
    """Context manager that holds `path` locked while the server runs.

    The file stays behind when the lock is released: removing it would let two processes lock two files of one name.

    Raises:
        ServerAlreadyRunning: on entry, when another process holds it; names its process id and the remedy.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> ServerLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise ServerAlreadyRunning(
                f"another server (process {holder}) already serves this database: {self._path} is locked. "
                "Stop it first, or use PostgreSQL to run several servers on one ledger"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
