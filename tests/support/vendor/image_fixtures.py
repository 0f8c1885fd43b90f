"""Image files of every kind that the vendor reads, made on the spot."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from support.vendor.serving_shop import noise, save

SHAPES = {"wide": (75, 50), "tall": (30, 200), "odd": (33, 47), "tiny": (3, 2), "input": (32, 32), "large": (320, 240)}


def picture(width: int, height: int) -> Image.Image:
    """Noise on a gradient, so that filters, chroma and rounding all matter."""
    ramp = np.linspace(0, 200, width, dtype=np.float32)[None, :, None] * np.array([1.0, 0.5, 0.2], dtype=np.float32)
    grain = np.asarray(noise(width, height)) * 0.2
    return Image.fromarray((ramp + grain).astype(np.uint8))


def image_files() -> dict[str, bytes]:
    """Over 40 files by name."""
    return {**_shapes(), **_modes(), **_orientations(), **_animations()}


def _shapes() -> dict[str, bytes]:
    formats: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 90},
        "PNG": {},
        "WEBP": {"lossless": True},
        "GIF": {},
        "BMP": {},
    }
    return {
        f"{file_format} {name}": save(picture(*size), file_format, **options)
        for file_format, options in formats.items()
        for name, size in SHAPES.items()
    }


def _modes() -> dict[str, bytes]:
    image = picture(60, 44)
    alpha = Image.fromarray(np.linspace(0, 255, 60 * 44).reshape(44, 60).astype(np.uint8))
    rgba = image.copy()
    rgba.putalpha(alpha)
    grey_alpha = Image.merge("LA", (image.convert("L"), alpha))
    palette = image.quantize(64)
    deep = np.asarray(image).astype(np.uint16) * 257
    deep[10:30, 10:40] = (0x1234, 0x5678, 0x9ABC)
    sixteen_bits = Image.fromarray(np.arange(60 * 44, dtype=np.uint16).reshape(44, 60) * 24)
    return {
        "PNG L": save(image.convert("L"), "PNG"),
        "PNG 1": save(image.convert("1"), "PNG"),
        "PNG LA": save(grey_alpha, "PNG"),
        "PNG P": save(palette, "PNG"),
        "PNG P+tRNS index": save(palette, "PNG", transparency=5),
        "PNG P+tRNS table": save(palette, "PNG", transparency=bytes(range(0, 256, 4))),
        "PNG RGB+tRNS": save(image, "PNG", transparency=image.getpixel((0, 0))),
        "PNG RGBA": save(rgba, "PNG"),
        "PNG I;16": save(sixteen_bits, "PNG"),
        "PNG I;16+tRNS": png_with_transparent_colour(deep[..., 0], 16, 0x1234),
        "PNG RGB16+tRNS": png_with_transparent_colour(deep, 16, 0x1234, 0x5678, 0x9ABC),
        "PNG L4+tRNS": png_with_transparent_colour(deep[..., 0] >> 12, 4, 1),
        "WEBP RGBA": save(rgba, "WEBP", lossless=True),
        "WEBP lossy": save(image, "WEBP", quality=60),
        "GIF P+tRNS": save(palette, "GIF", transparency=3),
        "JPEG L": save(image.convert("L"), "JPEG"),
        "JPEG CMYK": save(image.convert("CMYK"), "JPEG"),
        "JPEG progressive": save(image, "JPEG", progressive=True),
        "JPEG 4:4:4": save(image, "JPEG", subsampling=0),
        "BMP L": save(image.convert("L"), "BMP"),
        "BMP P": save(palette, "BMP"),
    }


def png_with_transparent_colour(levels: NDArray[np.uint16], depth: int, *colour: int) -> bytes:
    """A PNG of `depth` bits per level, grey from `[H, W]` and RGB from `[H, W, 3]`; one colour is transparent."""
    height, width = levels.shape[:2]
    big_endian = levels.astype(">u2").view(np.uint8).reshape(*levels.shape, 2)
    bits = np.unpackbits(big_endian, axis=-1)[..., -depth:]
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits.reshape(height, -1), axis=1))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, 2 if levels.ndim == 3 else 0, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(colour)}H", *colour),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def _orientations() -> dict[str, bytes]:
    image = picture(60, 44)
    files = {f"JPEG EXIF {number}": save(image, "JPEG", exif=exif_block(number)) for number in range(1, 9)}
    return {**files, "PNG EXIF 6": save(image, "PNG", exif=exif_block(6))}


def exif_block(orientation: int) -> bytes:
    """An EXIF block that says how to turn the image upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _animations() -> dict[str, bytes]:
    frames = [picture(60, 44), noise(60, 44, 1), noise(60, 44, 2)]
    return {
        f"{file_format} animated": save(frames[0], file_format, save_all=True, append_images=frames[1:])
        for file_format in ("GIF", "WEBP", "PNG")
    }
