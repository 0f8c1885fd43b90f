"""What a data set holds: images by domain and class, and all files that cannot be read, are ignored, or are doubles."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vl2v_client.core.errors import BrokenFile
from vl2v_client.core.progress import Notify, Progress, silent
from vl2v_client.data.folder import DomainDataset, is_hidden, is_image

PICTURE_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".gif", ".jxl", ".jp2", ".jfif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".psd")
)
"""Pictures that are not read, so that somebody may miss them."""

_CHUNK = 256


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        broken: What is wrong with each image that cannot be read or decoded.
        ignored: Other files, by suffix: their paths.
        duplicates: Groups of images with the same bytes: their paths.
    """

    broken: tuple[str, ...]
    ignored: dict[str, tuple[str, ...]]
    duplicates: tuple[tuple[str, ...], ...]


def inspect(dataset: DomainDataset, *, progress: Progress = silent) -> Inspection:
    """Decode every image of a data set, in threads, and look at all other files below its folder."""
    from vl2v_client.data.images import load_rgb_bytes, read_file

    def look(path: str) -> tuple[str, str]:
        """Return the hash of a file's bytes, and what is wrong with it; one of both is empty."""
        try:
            data = read_file(Path(path))
            load_rgb_bytes(data, Path(path))
            return hashlib.sha256(data).hexdigest(), ""
        except BrokenFile as error:
            return "", str(error)

    paths = [path for one in dataset.classes for path in one.paths]
    broken, by_content = [], defaultdict(list)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow and hashlib release the interpreter lock
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            for path, (content, fault) in zip(chunk, pool.map(look, chunk), strict=True):
                if fault:
                    broken.append(fault)
                else:
                    by_content[content].append(path)
            progress("check images", start + len(chunk), len(paths))
    doubles = tuple(tuple(group) for group in by_content.values() if len(group) > 1)
    return Inspection(tuple(broken), ignored_files(dataset.root), doubles)


def count_images(dataset: DomainDataset) -> dict[str, dict[str, int]]:
    """Return the number of images by domain and class."""
    counts: dict[str, dict[str, int]] = {domain: {} for domain in dataset.domains}
    for one in dataset.classes:
        counts[one.domain][dataset.class_names[one.class_index]] = len(one.paths)
    return counts


def ignored_files(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the files below a folder that are taken for no image, by suffix in lower case; no hidden ones."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in _files(root):
        if not is_image(os.path.basename(path)):
            found[os.path.splitext(path)[1].lower()].append(path)
    return {suffix: tuple(sorted(paths)) for suffix, paths in sorted(found.items())}


def _files(root: Path) -> Iterator[str]:
    for parent, names, files in os.walk(root):
        names[:] = [name for name in names if not is_hidden(name)]
        yield from (f"{parent}/{name}" for name in files if not is_hidden(name))


def tell_ignored(root: Path | None, notify: Notify) -> None:
    """Say which pictures below a folder are not read, and what to do, if there are any."""
    found = {} if root is None else ignored_files(root)
    counts = {suffix: len(paths) for suffix, paths in found.items() if suffix in PICTURE_SUFFIXES}
    if counts:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.items())
        ignored = "1 picture is" if sum(counts.values()) == 1 else f"{sum(counts.values()):,} pictures are"
        notify(
            f"{ignored} ignored, as nothing here reads such files ({kinds}): convert them to JPEG or PNG to use them"
        )


def names_below(root: Path, paths: Sequence[str]) -> list[str]:
    """Return paths as they stand below a folder."""
    return [os.path.relpath(path, root) for path in paths]
