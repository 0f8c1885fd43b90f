"""Bytes of an image file to the model's input pixels, under one declared policy (`preprocessing`).

Whatever the policy, in this order:

- Refused from the header, before any pixel is decoded: more than the allowed bytes or pixels (also after scaling: a
  needle of 1 x 1,000,000 pixels), any format but JPEG, PNG, WebP, GIF and BMP, and a structure that is out of
  proportion (`image_structure`). TIFF is left out: its decoders are the largest attack surface and no camera or web
  page needs it.
- Broken or truncated data is refused; nothing is guessed.
- Scaling and cropping are open_clip's own (torchvision's rules on PIL images: antialiased filter, the long side's
  length truncated, the crop's offset rounded half to even), so RGB input gives the same pixels bit for bit.

A decoding thread holds up to two copies of the image at 4 bytes per pixel; libwebp, and the coefficients of a
progressive JPEG, take up to 8 more.
"""

import io
import struct
import warnings
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from vl2v_contract.identity import rgb8_sha, sha256_hex
from vl2v_vendor.domain.encoder import LargeImage, PreparedItem
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.images.image_structure import FORMATS, check_jpeg_data, check_png_rows, check_structure
from vl2v_vendor.images.preprocessing import REFERENCE, SAFE_DRAFT, Preprocessing

_UPRIGHT: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
_ALPHA_MODES: Final = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_BAND_PIXELS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PillowImageDecoder:
    """The image decoder. Safe to call from several threads; Pillow releases the interpreter lock while it decodes."""

    preprocessing: Preprocessing
    max_item_bytes: int
    max_pixels: int

    def __post_init__(self) -> None:
        # Pillow warns of large, odd and damaged files; each is refused or treated as declared, so the log stays clean.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if Image.MAX_IMAGE_PIXELS is not None:
            # Pillow refuses twice as much. It is to open `max_pixels`, so that ours is the limit that decides; but what
            # others in the process have set is never lowered, and it is not turned off, as a second line of defence.
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, (self.max_pixels + 1) // 2)

    def decode(self, data: bytes, small_pixels: int | None = None) -> PreparedItem:
        """Decode one image file to `[S, S, 3]` RGB8, unless it has more than `small_pixels`.

        Raises:
            ItemFailure: empty_item, unsupported_image_format, image_too_large or undecodable_image.
            LargeImage: It has more than `small_pixels`, before or after scaling; none of them was decoded.
        """
        if not data:
            raise ItemFailure("empty_item", "the image has 0 bytes; send the file's content")
        if len(data) > self.max_item_bytes:
            raise ItemFailure(
                "image_too_large",
                f"the file has {len(data):,} bytes and at most {self.max_item_bytes:,} are read; scale it down",
            )
        announced = check_structure(data)
        if announced is not None and all(announced):
            self._check_pixels(announced)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = self._check_pixels(image.size)
                if small_pixels is not None and pixels > small_pixels:
                    raise LargeImage(pixels)
                return replace(self._render(image, data), pixels=pixels)
        except (ItemFailure, LargeImage):
            raise
        except Image.DecompressionBombError:
            raise self._too_many_pixels("far too many") from None
        except MemoryError:
            raise ItemFailure(
                "image_too_large", "there is not enough memory to decode the image; scale it down"
            ) from None
        except Exception as error:
            # Pillow's plugins raise anything from OSError to struct.error on broken files; all mean the same here.
            raise ItemFailure(
                "undecodable_image",
                f"the file is truncated or broken ({type(error).__name__}); send the whole file again",
            ) from error

    def name_of_bytes(self, data: bytes) -> str | None:
        """Return the name of a file's content, unless that is its pixels' name: a PNG may be, at the input size."""
        size = self.preprocessing.size
        if data.startswith(b"\x89PNG") and data[16:24] == struct.pack(">II", size, size):
            return None
        return sha256_hex(data)

    def from_rgb8(self, data: bytes | memoryview) -> PreparedItem:
        """Take `S * S * 3` bytes of RGB8 as the model's input, bit for bit; the pixels are a view of `data`.

        Raises:
            ItemFailure: `undecodable_image`, naming both lengths.
        """
        size = self.preprocessing.size
        if len(data) != size * size * 3:
            raise ItemFailure(
                "undecodable_image",
                f"{len(data):,} bytes are no raw RGB8 image of the model's {size} x {size} input, which has "
                f"{size * size * 3:,}; scale it to that size, or send an image file",
            )
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(size, size, 3)
        return PreparedItem(pixels, rgb8_sha(data, width=size, height=size))

    def _check_pixels(self, size: tuple[int, int]) -> int:
        """Return the number of pixels, before or after scaling, whichever is larger."""
        width, height = size
        if width * height > self.max_pixels:
            raise self._too_many_pixels(f"{width} x {height}")
        scaled_width, scaled_height = self._scaled_size(size)
        if scaled_width * scaled_height > self.max_pixels:
            raise self._too_many_pixels(f"{scaled_width} x {scaled_height} after scaling the shorter side")
        return max(width * height, scaled_width * scaled_height)

    def _too_many_pixels(self, found: str) -> ItemFailure:
        return ItemFailure(
            "image_too_large",
            f"the image has {found} pixels and at most {self.max_pixels:,} are decoded; scale it down",
        )

    def _render(self, image: Image.Image, data: bytes) -> PreparedItem:
        size, policy = self.preprocessing.size, self.preprocessing.policy
        if policy == SAFE_DRAFT and isinstance(image, JpegImageFile):
            image.draft(None, (2 * size, 2 * size))
        image.load()  # first: whoever asks a PNG for its EXIF block loads it too, and forgives what is broken
        # A row that did not come is zeros; the last row comes last, but for an interlaced file's.
        if image.format == "PNG" and (data[28] or not any(image.crop((0, image.height - 1, *image.size)).tobytes())):
            check_png_rows(data)
        if isinstance(image, JpegImageFile):
            check_jpeg_data(data)
        orientation = _orientation_of(image)
        # Whether the pixels are the file's whole content: PNG, 8 bits, colour type RGB, one frame, no tRNS.
        is_plain = image.format == "PNG" and data[24:26] == b"\x08\x02" and "transparency" not in image.info
        is_plain = is_plain and not getattr(image, "is_animated", False)
        is_input = is_plain and image.size == (size, size) and orientation == 1
        if policy == REFERENCE:
            pixels = np.asarray(self._fit(image).convert("RGB"))
        else:
            rgb = _to_rgb(image, data)
            pixels = np.asarray(self._fit(rgb if orientation == 1 else rgb.transpose(_UPRIGHT[orientation])))
        if is_input:
            return PreparedItem(pixels, rgb8_sha(pixels.tobytes(), width=size, height=size))
        return PreparedItem(pixels, sha256_hex(data))

    def _fit(self, image: Image.Image) -> Image.Image:
        """Scale to `_scaled_size`, then crop the centre `S x S`."""
        size = self.preprocessing.size
        width, height = self._scaled_size(image.size)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling[self.preprocessing.interpolation.upper()])
        left, top = round((width - size) / 2.0), round((height - size) / 2.0)
        return image.crop((left, top, left + size, top + size))

    def _scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after scaling, by torchvision's rules."""
        target = self.preprocessing.size
        if self.preprocessing.resize_mode == "squash":
            return target, target
        width, height = size
        if width <= height:
            return target, int(target * height / width)
        return int(target * width / height), target


def _orientation_of(image: Image.Image) -> int:
    """Return EXIF orientation 1 to 8; 1, upright, when there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # A broken EXIF block raises whatever its parser stumbles over, and says nothing about the pixels.
        return 1
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """Convert the first frame to RGB, by policy `safe`; in bands, so that at most two whole copies are in memory."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.format == "PNG" and "transparency" in image.info:
        # Pillow scales a PNG's pixels to 8 bits, and leaves its transparent colour.
        colour, depth = image.info["transparency"], data[24]
        if image.mode == "RGB" and depth == 16:
            image.info["transparency"] = tuple(level >> 8 for level in colour)
        elif image.mode == "L" and depth in (2, 4):
            image.info["transparency"] = colour * 255 // (2**depth - 1)
    width, height = image.size
    rgb = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        rgb.paste(_flatten(image.crop((0, top, width, min(height, top + rows)))), (0, top))
    return rgb


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _scale_sixteen_bits(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8-bit grey, with alpha if one of its levels is the transparent one."""
    levels = np.asarray(image)
    rounded = (np.clip(levels, 0, 65535).astype(np.uint32) * 255 + 32767) // 65535
    grey = Image.fromarray(rounded.astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    is_clear = levels == image.info["transparency"]
    return Image.merge("LA", (grey, Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8))))
