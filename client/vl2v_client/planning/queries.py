"""What the teacher is asked about, and the content hash of every view: only what no memo remembers is rendered."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vl2v_client.cache.store import EmbeddingCache, FileContent, FileStamp
from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import RGBImage, Sample, TeacherModel
from vl2v_client.data.views import RENDERER_VERSION, View
from vl2v_client.planning.render_spool import RenderSpool
from vl2v_contract.identity import EmbeddingIdentity, Modality, rgb8_sha

if TYPE_CHECKING:
    from vl2v_client.data.pictures import Picture


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """One view of one image."""

    sample: Sample
    view: View

    @property
    def name(self) -> str:
        """What to call it in a message."""
        view = self.view.to_json()
        return str(self.sample.path) if not view else f"{self.sample.path} (view {view})"

    @property
    def source(self) -> Path:
        """The file; equal for all its views."""
        return self.sample.path


@dataclass(frozen=True, slots=True, eq=False)
class PictureQuery:
    """One whole image that is in memory and stays as it is until it is bought.

    Attributes:
        picture: A picture, from `data.pictures.check_picture`.
        name: What to call it in a message.
    """

    picture: "Picture"
    name: str

    @property
    def source(self) -> int:
        """Identity of the picture."""
        return id(self.picture)

    def render(self, size: int) -> RGBImage:
        """Return the pixels `[size, size, 3]`.

        Raises:
            DataError: As `data.pictures.render_picture`.
        """
        from vl2v_client.data.pictures import render_picture

        return render_picture(self.picture, size, self.name)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """One text, such as a class name in a prompt template."""

    text: str

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"text {self.text!r}"


Query = ImageQuery | PictureQuery | TextQuery

_COMMIT_EVERY = 256
_HASHES_PER_COMMIT = 16_384
_HASHES_PER_TASK = 64
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def read_files(paths: Iterable[Path], cache: EmbeddingCache, *, progress: Progress = silent) -> dict[Path, FileContent]:
    """Hash and size of each file, read only if it is new or changed.

    Raises:
        DataError: A file is missing or is no image.
    """
    stamps = {path: stamp_of(path.absolute()) for path in dict.fromkeys(paths)}
    known = cache.contents.files(stamps.values())
    unknown = [stamp for stamp in stamps.values() if stamp not in known]
    left = len(unknown)
    for fresh in _in_threads(_read_file, unknown, _COMMIT_EVERY):
        cache.contents.remember_files(fresh)
        known.update(fresh)
        left -= len(fresh)
        progress("read files", len(unknown) - left, len(unknown))
    return {path: known[stamp] for path, stamp in stamps.items()}


def hash_files(
    folder: Path, paths: Sequence[str], cache: EmbeddingCache, *, progress: Progress = silent
) -> dict[str, str]:
    """Hash of each file's bytes by path, read only if the file is new or changed; no picture is decoded.

    Paths are absolute, and so is the folder above all of them. The progress gets every file that is hashed.

    Raises:
        DataError: A file is missing or cannot be read.
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


def hash_images(
    queries: Sequence[ImageQuery | PictureQuery],
    cache: EmbeddingCache,
    *,
    size: int,
    spool: RenderSpool | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Return the content hash of each query's pixels at `size` x `size`; pictures in memory are rendered each time.

    Raises:
        DataError: As `hash_views`, or a picture in memory has pixels of unknown range.
    """

    def hash_picture(query: PictureQuery) -> str:
        return pixels_sha(query.render(size))

    files = [query for query in queries if isinstance(query, ImageQuery)]
    of_files = iter(hash_views(files, cache, size=size, spool=spool, progress=progress))
    pictures = {query.source: query for query in queries if isinstance(query, PictureQuery)}
    hashed = _in_threads(hash_picture, list(pictures.values()), _COMMIT_EVERY)
    of_pictures = {query.source: content_sha for some in hashed for query, content_sha in some}
    return [next(of_files) if isinstance(query, ImageQuery) else of_pictures[query.source] for query in queries]


def hash_views(
    queries: Sequence[ImageQuery],
    cache: EmbeddingCache,
    *,
    size: int,
    spool: RenderSpool | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Return the content hash of each query's pixels at `size` x `size`; a file is decoded once for all its new views.

    What is rendered for it goes into the spool.

    Raises:
        DataError: A file is missing, is no image, or its view does not fit it any more.
    """
    from vl2v_client.data.images import load_rgb  # Pillow takes its time, and an upper bound renders nothing
    from vl2v_client.data.rendering import render_view

    def hash_file(task: tuple[Path, Mapping[bytes, View]]) -> list[tuple[bytes, str]]:
        path, views = task
        stamp, image = stamp_of(path), load_rgb(path)
        hashes = []
        for key, view in views.items():
            pixels = render_view(image, view, size)
            hashes.append((key, pixels_sha(pixels)))
            if spool is not None:
                spool.put(hashes[-1][1], pixels, stamp)
        return hashes

    keys = view_keys(queries, cache, size=size, progress=progress)
    known = cache.contents.views(dict.fromkeys(keys))
    unknown: dict[Path, dict[bytes, View]] = defaultdict(dict)
    seen: set[bytes] = set(known)
    for query, key in zip(queries, keys, strict=True):
        if key not in seen:
            seen.add(key)
            unknown[query.sample.path][key] = query.view
    total = len(seen) - len(known)
    for hashed in _in_threads(hash_file, list(unknown.items()), _COMMIT_EVERY):
        fresh = [pair for _, of_file in hashed for pair in of_file]
        cache.contents.remember_views(fresh)
        known.update(fresh)
        progress("render views", total - (len(seen) - len(known)), total)
    return [known[key] for key in keys]


def view_keys(
    queries: Sequence[ImageQuery], cache: EmbeddingCache, *, size: int, progress: Progress = silent
) -> list[bytes]:
    """Return a hash of what decides each query's pixels at `size` x `size`: equal for copies. Decodes nothing.

    Raises:
        DataError: A file is missing or is no image.
    """
    files = read_files((query.sample.path for query in queries), cache, progress=progress)
    facts = ([files[query.sample.path].file_sha, query.view.to_json(), size, RENDERER_VERSION] for query in queries)
    texts = (json.dumps(of_one, separators=(",", ":"), sort_keys=True) for of_one in facts)
    return [hashlib.sha256(text.encode()).digest() for text in texts]


def hash_in_threads(paths: Sequence[str]) -> list[str]:
    """Hash of each file's bytes, in order; no memo is asked.

    Raises:
        DataError: A file is missing or cannot be read.
    """
    tasks = [paths[start : start + _HASHES_PER_TASK] for start in range(0, len(paths), _HASHES_PER_TASK)]
    return [
        file_sha
        for hashed in _in_threads(_hash_all, tasks, _HASHES_PER_COMMIT)
        for _, of_task in hashed
        for file_sha in of_task
    ]


def identity_of(teacher: TeacherModel, modality: Modality, content_sha: str) -> EmbeddingIdentity:
    """Return what names a model's vector of a content."""
    return EmbeddingIdentity(
        ledger_id=teacher.ledger_id,
        modality=modality,
        model_id=teacher.id,
        weights_sha=teacher.weights_sha,
        precision=teacher.precision,
        preprocessing_id=teacher.preprocessing_id,
        truncate=False,
        content_sha=content_sha,
    )


def pixels_sha(pixels: RGBImage) -> str:
    """Return content hash of `[H, W, 3]` pixels."""
    height, width, _ = pixels.shape
    return rgb8_sha(pixels.tobytes(), width=width, height=height)


def stamp_of(path: Path | str) -> FileStamp:
    """Return the stamp of a file as it is now.

    Raises:
        DataError: It is missing.
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


def _unreadable(path: Path | str, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror}): check that it exists and its permissions")


def _read_file(stamp: FileStamp) -> FileContent:
    from vl2v_client.data.images import image_size, read_file

    path = Path(stamp.path)
    data = read_file(path)
    return FileContent(hashlib.sha256(data).hexdigest(), *image_size(data, path))


def _in_threads(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], chunk: int
) -> Iterator[list[tuple[_Task, _Result]]]:
    """Yield so many tasks at a time, each with its result."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow and hashlib release the interpreter lock
        for start in range(0, len(tasks), chunk):
            some = tasks[start : start + chunk]
            yield list(zip(some, pool.map(work, some), strict=True))
