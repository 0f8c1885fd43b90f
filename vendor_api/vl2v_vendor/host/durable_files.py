"""Files that a power loss leaves whole: as they were, or as they were to become."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def keep_owner(temporary: Path, target: Path) -> None:
    """Give a written file the owner and mode of the one that it is to replace, if there is one."""
    try:
        known = target.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.chown(temporary, known.st_uid, known.st_gid)
        os.chmod(temporary, stat.S_IMODE(known.st_mode))


def write_durably(target: Path, text: str) -> None:
    """Write a file that is whole before it gets its name; see `replace_durably`."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        temporary.write_text(text, encoding="utf-8")
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


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
