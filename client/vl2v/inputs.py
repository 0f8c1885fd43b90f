"""Images as users have them: PIL images, arrays, or paths of files."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import Sample
from vl2v_client.data.pictures import check_picture
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.queries import ImageQuery, PictureQuery

ImageInput: TypeAlias = Image.Image | NDArray[np.uint8] | str | os.PathLike[str]
"""A PIL image of any mode, an array `[H, W, 3]` of uint8 in RGB order, or the path of an image file."""


def image_queries(images: Iterable[ImageInput]) -> list[ImageQuery | PictureQuery]:
    """Return the query of each whole image; files are not opened.

    Raises:
        UsageError: One image stands where many are wanted.
        DataError: One is no image; the message says which, from 0.
    """
    if is_image(images):
        raise UsageError("give a list of images, also for one")
    return [image_query(image, f"image {place}") for place, image in enumerate(images)]


def image_query(image: ImageInput, name: str) -> ImageQuery | PictureQuery:
    """Return the query of a whole image.

    Raises:
        DataError: It is no image; `name` says which.
    """
    if isinstance(image, str | os.PathLike):
        return ImageQuery(Sample(Path(image), "", 0), canonical_view())
    return PictureQuery(check_picture(image, name), name)


def is_image(value: object) -> TypeGuard[ImageInput]:
    """Return whether something is one image, and no list of them."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 3
    return is_array or isinstance(value, Image.Image | str | os.PathLike)
