"""Image files in and out: any file that Pillow reads becomes plain RGB8, pixels become lossless PNG."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vl2v_client.core.errors import BrokenFile
from vl2v_client.core.files import open_regular
from vl2v_client.core.values import RGBImage

MAX_PIXELS = 89_478_485
"""Larger images are refused by their header: the point where Pillow begins to warn of decompression bombs."""

MAX_FILE_BYTES = 512 * 2**20

_TIFF_WIDTH_TAG, _TIFF_HEIGHT_TAG = 0x0100, 0x0101
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def load_rgb(path: Path) -> Image.Image:
    """Read an image file as RGB8.

    The first frame of an animation; turned as its EXIF orientation says; transparency on white; 16-bit grey scaled
    to 8 bits; CMYK, palette and other modes converted as Pillow does.

    Raises:
        BrokenFile: The file cannot be read, is no image, is broken, or has more than `MAX_PIXELS`.
    """
    return load_rgb_bytes(read_file(path), path)


def load_rgb_bytes(data: bytes, path: Path) -> Image.Image:
    """Decode an image file of these bytes as `load_rgb` does; the path names it in messages.

    Raises:
        DataError: As `load_rgb`.
    """
    with _opened(data, path) as image:
        image.seek(0)
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), str(path))


def is_plain(data: bytes, path: Path) -> bool:
    """Return whether a file holds 8-bit RGB or grey and no transparency, so that every decoder agrees on its pixels.

    Raises:
        DataError: As `image_size`.
    """
    with _opened(data, path) as image:
        return image.mode in ("RGB", "L") and not image.has_transparency_data


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """Return width and height of what `load_rgb` returns for a file of these bytes, from its header alone.

    Raises:
        BrokenFile: As `load_rgb`, except for what only decoding shows.
    """
    with _opened(data, path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow may have turned its size already, its tags are as stored
            width, height = image.tag_v2[_TIFF_WIDTH_TAG], image.tag_v2[_TIFF_HEIGHT_TAG]
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)


def encode_png(pixels: RGBImage) -> bytes:
    """Encode `[H, W, 3]` uint8 as lossless PNG; compressed fast, since the content hash is of the pixels alone."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        BrokenFile: It cannot be read, is empty, no regular file, or larger than `MAX_FILE_BYTES`.
    """
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            data = file.read()
    except OSError as error:
        raise BrokenFile(f"{path} cannot be read ({error.strerror}): check its path and permissions") from error
    if not data:
        raise BrokenFile(f"{path} is empty (0 bytes): copy it again or remove it")
    return data


@contextmanager
def _opened(data: bytes, path: Path) -> Iterator[Image.Image]:
    """Open an image, and name it in whatever its decoder raises."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except BrokenFile:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        what = f"{path} has more than {MAX_PIXELS:,} pixels, too many to decode safely: scale it or remove it"
        raise BrokenFile(what) from error
    except UnidentifiedImageError as error:
        raise BrokenFile(f"{path} is not an image, whatever its name says: replace it or remove it") from error
    except Exception as error:  # Pillow's decoders raise anything: OSError, SyntaxError, struct.error, zlib.error ...
        raise BrokenFile(f"{path} is a broken image ({error}): copy it again or remove it") from error


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert as `load_rgb` says; `name` is what to call the image in a message.

    Raises:
        BrokenFile: Its pixels are of unknown range.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BrokenFile(f"{name} holds floating-point pixels of unknown range: save it as an 8-bit image")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
