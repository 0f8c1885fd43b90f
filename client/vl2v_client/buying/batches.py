"""Cutting a plan into requests, and filling each with what is to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image

from vl2v_client.api.uploads import ImageForm
from vl2v_client.cache.purchases import Intent
from vl2v_client.core.errors import DataError
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.views import encode_png, load_rgb, render_view
from vl2v_client.planning.hashing import pixels_sha
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import PlannedItem

Batch = tuple[PlannedItem, ...]

_IMAGES_AT_MOST = 64
_TEXTS_AT_MOST = 256
_PART_OVERHEAD_BYTES = 1024  # multipart headers, the item key, and PNG's own framing


def cut_batches(items: Sequence[PlannedItem], teacher: TeacherModel) -> list[Batch]:
    """Return requests of one modality each, all new or all expired, in order, within what the vendor accepts."""
    largest_image = 3 * teacher.image_size**2 + teacher.image_size + _PART_OVERHEAD_BYTES
    limits = {
        "image": min(_IMAGES_AT_MOST, teacher.max_items, teacher.max_request_bytes // largest_image),
        "text": min(_TEXTS_AT_MOST, teacher.max_items),
    }
    batches: list[Batch] = []
    for (modality, _), group in groupby(items, key=lambda item: (item.modality, item.is_expired)):
        run, size = list(group), max(1, limits[modality])
        batches += [tuple(run[start : start + size]) for start in range(0, len(run), size)]
    return batches


def intents_of(batch: Batch, teacher: TeacherModel) -> list[Intent]:
    """Return what to reserve before the batch is sent."""
    return [
        Intent(
            item.item_key,
            item.cache_key,
            item.modality,
            teacher.id,
            teacher.weights_sha,
            item.content_sha,
            item.unit_price_micro,
        )
        for item in batch
    ]


def render_images(batch: Batch, size: int, form: ImageForm) -> list[bytes]:
    """Return the images of a batch at `size`, from the files as they are now: RGB8 pixels `[S, S, 3]`, or lossless PNG.

    Raises:
        DataError: A file cannot be read, or no longer shows what was planned.
    """
    loaded: dict[Path, Image.Image] = {}
    images = []
    for item in batch:
        if not isinstance(item.query, ImageQuery):
            raise TypeError("a batch of images holds image queries only")
        path = item.query.sample.path
        if path not in loaded:
            loaded = {path: load_rgb(path)}  # views of one file are neighbours; older files are not needed again
        pixels = render_view(loaded[path], item.query.view, size)
        if pixels_sha(pixels) != item.content_sha:
            raise DataError(f"{path} has changed since it was planned; nothing of it was sent: run the command again")
        images.append(pixels.tobytes() if form == "rgb8" else encode_png(pixels))
    return images


def texts_of(batch: Batch) -> list[str]:
    """Return the texts of a batch."""
    return [item.query.text for item in batch if isinstance(item.query, TextQuery)]
