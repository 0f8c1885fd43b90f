"""Files that may be somebody else's, read within bounds, and files that are written for good."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from vl2v_client.core.errors import CacheError

_NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)
"""Windows has neither the flag nor pipes in folders."""


def open_regular(path: Path, max_bytes: int) -> BufferedReader:
    """Open a file for reading that is no pipe or device, which might never end.

    Raises:
        OSError: It cannot be opened, is no regular file, or is larger than `max_bytes`; `strerror` says so.
    """
    # without O_NONBLOCK, to open a pipe waits for a writer; SIM115: the caller closes it
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NON_BLOCKING))  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes", str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_json(path: Path, max_bytes: int) -> Any:
    """Return the JSON value in a file.

    Raises:
        OSError: As `open_regular`.
        ValueError: It is not JSON, or too deep.
    """
    with open_regular(path, max_bytes) as file:
        try:
            return json.loads(file.read())
        except RecursionError as error:
            raise ValueError("its JSON is too deep") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write; on leaving it takes the place of `path`, whole and for good, or the earlier one stays.

    The folder is made if it is not there. A link of the unfinished file's name, as in a stranger's folder, is removed.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:  # "wb" would write into what a link leads to
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole and for good, or leave the earlier one; its folder is made if it is not there.

    Raises:
        CacheError: It cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error
