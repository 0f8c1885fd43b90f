"""What image files hold: their hashes and sizes, read once by threads, and what is wrong with those that are broken."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vl2v_client.cache.memo import RunCache
from vl2v_client.cache.store import EmbeddingCache, FileContent, FileStamp
from vl2v_client.core.errors import BrokenFile
from vl2v_client.core.progress import Progress, silent

COMMIT_EVERY = 256
_HASHES_PER_COMMIT = 16_384
_HASHES_PER_TASK = 64
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


OnBroken = Callable[[Path, BrokenFile], object]
"""Gets a file that cannot be used, and why; it may raise."""


def refuse_broken(_path: Path, error: BrokenFile) -> None:
    """Stop at a broken file.

    Raises:
        BrokenFile: What is wrong with it.
    """
    raise error


def read_files(
    paths: Iterable[Path], cache: RunCache, *, progress: Progress = silent, on_broken: OnBroken = refuse_broken
) -> dict[Path, FileContent]:
    """Hash and size of each file, read only if it is new or changed; what goes to `on_broken` is left out.

    Raises:
        BrokenFile: A file is missing or is no image.
    """
    stamps = {}
    for path in dict.fromkeys(paths):
        try:
            stamps[path] = stamp_of(path.absolute())
        except BrokenFile as error:
            on_broken(path, error)
    known = cache.contents.files(stamps.values())
    unknown = {stamp: path for path, stamp in stamps.items() if stamp not in known}
    left = len(unknown)
    for done in in_threads(attempt(_read_file), list(unknown), COMMIT_EVERY):
        for stamp, content in done:
            if isinstance(content, BrokenFile):
                on_broken(unknown[stamp], content)
        fresh = [(stamp, content) for stamp, content in done if not isinstance(content, BrokenFile)]
        cache.contents.remember_files(fresh)
        known.update(fresh)
        left -= len(done)
        progress("read files", len(unknown) - left, len(unknown))
    return {path: known[stamp] for path, stamp in stamps.items() if stamp in known}


def hash_files(
    folder: Path, paths: Sequence[str], cache: EmbeddingCache, *, progress: Progress = silent
) -> dict[str, str]:
    """Hash of each file's bytes by path, read only if the file is new or changed; no picture is decoded.

    Paths are absolute, and so is the folder above all of them. The progress gets every file that is hashed.

    Raises:
        BrokenFile: A file is missing or cannot be read.
    """
    known = cache.contents.hashes_below(str(folder))
    stamps = [stamp_of(path) for path in sorted(paths)]  # as the disk, the memory and the memo's index like them
    unknown = [stamp for stamp in stamps if stamp not in known]
    for start in range(0, len(unknown), _HASHES_PER_COMMIT):
        chunk = unknown[start : start + _HASHES_PER_COMMIT]
        fresh = list(zip(chunk, hash_in_threads([stamp.path for stamp in chunk]), strict=True))
        cache.contents.remember_files((stamp, FileContent(file_sha)) for stamp, file_sha in fresh)
        known.update(fresh)
        progress("hash files", start + len(chunk), len(unknown))
    return {stamp.path: known[stamp] for stamp in stamps}


def hash_in_threads(paths: Sequence[str]) -> list[str]:
    """Hash of each file's bytes, in order; no memo is asked.

    Raises:
        BrokenFile: A file is missing or cannot be read.
    """
    tasks = [paths[start : start + _HASHES_PER_TASK] for start in range(0, len(paths), _HASHES_PER_TASK)]
    return [
        file_sha
        for hashed in in_threads(_hash_all, tasks, _HASHES_PER_COMMIT)
        for _, of_task in hashed
        for file_sha in of_task
    ]


def stamp_of(path: Path | str) -> FileStamp:
    """Return the stamp of a file as it is now.

    Raises:
        BrokenFile: It is missing.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return FileStamp(str(path), status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))


def _hash_all(paths: Sequence[str]) -> list[str]:
    hashes = []
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                hashes.append(hashlib.sha256(file.readall()).hexdigest())
        except OSError as error:
            raise _unreadable(path, error) from error
    return hashes


def _unreadable(path: Path | str, error: OSError) -> BrokenFile:
    return BrokenFile(f"{path} cannot be read ({error.strerror}): check that it exists and its permissions")


def _read_file(stamp: FileStamp) -> FileContent:
    from vl2v_client.data.images import image_size, read_file

    path = Path(stamp.path)
    data = read_file(path)
    return FileContent(hashlib.sha256(data).hexdigest(), *image_size(data, path))


def attempt(work: Callable[[_Task], _Result]) -> Callable[[_Task], _Result | BrokenFile]:
    """Return what does the same, but returns what it would raise about a file."""

    def attempted(task: _Task) -> _Result | BrokenFile:
        try:
            return work(task)
        except BrokenFile as error:
            return error

    return attempted


def in_threads(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], chunk: int
) -> Iterator[list[tuple[_Task, _Result]]]:
    """Yield so many tasks at a time, each with its result."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow and hashlib release the interpreter lock
        for start in range(0, len(tasks), chunk):
            some = tasks[start : start + chunk]
            yield list(zip(some, pool.map(work, some), strict=True))
