"""What the teacher is asked about, and the content hash of every view: only what no memo remembers is rendered."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vl2v_client.cache.memo import RunCache
from vl2v_client.core.errors import BrokenFile
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import RGBImage, Sample, TeacherModel
from vl2v_client.data.views import RENDERER_VERSION, View
from vl2v_client.planning.file_contents import (
    COMMIT_EVERY,
    OnBroken,
    attempt,
    in_threads,
    read_files,
    refuse_broken,
    stamp_of,
)
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

    def render(self, size: int) -> RGBImage:
        """Return the pixels `[size, size, 3]`.

        Raises:
            BrokenFile: The file cannot be read, is no image, or the view does not fit it.
        """
        from vl2v_client.data.images import load_rgb  # Pillow takes its time, and an upper bound renders nothing
        from vl2v_client.data.rendering import render_view

        return render_view(load_rgb(self.source), self.view, size)


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


def hash_images(
    queries: Sequence[ImageQuery | PictureQuery],
    cache: RunCache,
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
    hashed = in_threads(hash_picture, list(pictures.values()), COMMIT_EVERY)
    of_pictures = {query.source: content_sha for some in hashed for query, content_sha in some}
    return [next(of_files) if isinstance(query, ImageQuery) else of_pictures[query.source] for query in queries]


def hash_views(
    queries: Sequence[ImageQuery],
    cache: RunCache,
    *,
    size: int,
    spool: RenderSpool | None = None,
    progress: Progress = silent,
    on_broken: OnBroken = refuse_broken,
) -> list[str]:
    """Return the content hash of each query's pixels at `size` x `size`; a file is decoded once for all its new views.

    What is rendered for it goes into the spool. Queries about a file that goes to `on_broken` are left out.

    Raises:
        BrokenFile: A file is missing, is no image, or its view does not fit it any more.
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

    if on_broken is not refuse_broken:
        readable = read_files((one.sample.path for one in queries), cache, progress=progress, on_broken=on_broken)
        queries = [one for one in queries if one.sample.path in readable]
    keys = view_keys(queries, cache, size=size, progress=progress)
    known = cache.contents.views(dict.fromkeys(keys))
    unknown: dict[Path, dict[bytes, View]] = defaultdict(dict)
    seen: set[bytes] = set(known)
    for query, key in zip(queries, keys, strict=True):
        if key not in seen:
            seen.add(key)
            unknown[query.sample.path][key] = query.view
    total = len(seen) - len(known)
    for hashed in in_threads(attempt(hash_file), list(unknown.items()), COMMIT_EVERY):
        fresh = []
        for (path, _), of_file in hashed:
            if isinstance(of_file, BrokenFile):
                on_broken(path, of_file)
            else:
                fresh += of_file
        cache.contents.remember_views(fresh)
        known.update(fresh)
        progress("render views", total - (len(seen) - len(known)), total)
    return [known[key] for key in keys if key in known]


def view_keys(queries: Sequence[ImageQuery], cache: RunCache, *, size: int, progress: Progress = silent) -> list[bytes]:
    """Return a hash of what decides each query's pixels at `size` x `size`: equal for copies. Decodes nothing.

    Raises:
        BrokenFile: A file is missing or is no image.
    """
    files = read_files((query.sample.path for query in queries), cache, progress=progress)
    facts = ([files[query.sample.path].file_sha, query.view.to_json(), size, RENDERER_VERSION] for query in queries)
    texts = (json.dumps(of_one, separators=(",", ":"), sort_keys=True) for of_one in facts)
    return [hashlib.sha256(text.encode()).digest() for text in texts]


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
