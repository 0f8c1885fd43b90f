"""One server per SQLite database: a lock file beside it, held by the kernel, so that no crash leaves it locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        database: File of the database; the lock is a file beside it, which stays behind.
        alone: Whether to keep all others away.

    Raises:
        DatabaseReplaced: Others are at work, or somebody alone.
        VendorError: The lock file cannot be made here.
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


@contextmanager
def server_lock(path: Path) -> Iterator[None]:
    """Hold `path` locked while the server runs.

    The file stays behind when the lock is released: removing it would let two processes lock two files of one name.

    Raises:
        ServerAlreadyRunning: Another process holds it; names its process id and the remedy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ServerAlreadyRunning(
                f"another server (process {holder}) already serves this database: {path} is locked. "
                "Stop it first, or use PostgreSQL to run several servers on one ledger"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)
