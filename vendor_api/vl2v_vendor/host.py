"""Services of the operating system: durable files, file locks, memory and the clock.

The kernel holds a lock, so no crash leaves a file locked. A lock file stays behind when its lock is released: removing
it would let two processes lock two files of one name.
"""

import ctypes
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TextIO

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
        database: File of the database; the lock is a file beside it.
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
    with os.fdopen(descriptor, "rb"):
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            other = "a command is at work on it" if alone else "`vl2v-vendor ledger restore` is replacing it"
            raise DatabaseReplaced(f"{database} is in use: {other}; try again once that has ended") from error
        yield


@contextmanager
def server_lock(path: Path) -> Iterator[None]:
    """Hold `path` locked while the server runs.

    Raises:
        ServerAlreadyRunning: Another process holds it; names its process id and the remedy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "rb"):
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


@contextmanager
def durable_file(target: Path, *, mode: int = 0o666) -> Iterator[TextIO]:
    """Open a text file for writing that is whole before it gets its name; see `replace_durably` for the mode too."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        replace_durably(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def replace_durably(temporary: Path, target: Path) -> None:
    """Give a written file its final name; when this returns, name and content are on disk.

    It keeps owner and mode of the file that it replaces, where this user may give them: root's commands lock no
    service out of its own files.
    """
    keep_owner(temporary, target)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    sync_folder(target.parent)


def keep_owner(temporary: Path, target: Path) -> None:
    """Give a written file the owner and mode of the one that it is to replace, if there is one."""
    with suppress(FileNotFoundError, PermissionError):
        known = target.stat()
        os.chown(temporary, known.st_uid, known.st_gid)
        os.chmod(temporary, stat.S_IMODE(known.st_mode))


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def return_free_memory() -> None:
    """Give back to the system what is free, where the C library keeps it: glibc does, between pieces still in use.

    Large bodies come in small pieces, so that what one flood of them took would stay with the server.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class SystemClock:
    """Wall-clock time; a ledger never lets it run backwards within an account."""

    def now(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000


class ClockStepped(VendorError):
    """The wall clock went ahead by more than the bound since the server started."""


def _since_boot() -> int:
    """Return nanoseconds of a clock that is never set, and on Linux goes on while the machine is suspended."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class GuardedClock:
    """A server's wall clock, which no step moves ahead by more than a bound; a step back goes through."""

    def __init__(
        self,
        bound_seconds: float,
        *,
        wall: Callable[[], int] = time.time_ns,
        since_boot: Callable[[], int] = _since_boot,
    ) -> None:
        """Start both clocks, which count nanoseconds."""
        self._wall, self._since_boot = wall, since_boot
        self._bound = bound_seconds * 1e9
        self._booted_at = wall() - since_boot()

    def now(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        return int(min(self._wall(), self._booted_at + self._since_boot() + self._bound)) // 1000

    async def check(self) -> None:
        """Check that times are not held back; for readiness.

        Raises:
            ClockStepped: They are; says by how much the wall clock is ahead, and the remedy.
        """
        lead = self._wall() - self._since_boot() - self._booted_at
        if lead > self._bound:
            raise ClockStepped(
                f"the wall clock went {timedelta(seconds=lead // 10**9)} ahead of the time since the start, and times "
                f"are held back to {self._bound / 1e9:g} seconds of it; set it right, or restart the server if it is"
            )
