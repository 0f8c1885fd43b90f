"""Small files that would cost a careless reader gigabytes or minutes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from PIL import Image

from support.vendor.serving_shop import png_bomb, save

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KILOBYTE_PAYLOAD = b"\0" * 1000


def large_canvases() -> dict[str, bytes]:
    """Headers of more pixels than are decoded."""
    gif = save(Image.new("P", (8, 8)), "GIF")
    frame = gif.index(b"\x2c")
    webp = riff(b"VP8X", bytes([2, 0, 0, 0]) + int24(15_999) + int24(15_999))
    lossless = riff(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(100))
    jpeg = bytearray(save(Image.new("RGB", (8, 8)), "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 60_000, 60_000)
    bmp = bytearray(save(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    return {
        "png 169 MP": png_bomb(13_000, 13_000),
        "png 400 MP": png_bomb(20_000, 20_000),
        "png needle": png_bomb(8, 20_000_000),
        "gif screen": gif[:6] + struct.pack("<HH", 13_000, 13_000) + gif[10:],
        "gif frame outside its screen": gif[: frame + 5] + struct.pack("<HH", 9_000, 9_000) + gif[frame + 9 :],
        "webp animated canvas": webp,
        "webp lossless": lossless,
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
    }


def floods() -> dict[str, bytes]:
    """Files of too many parts."""
    gif = save(Image.new("P", (8, 8)), "GIF")
    frame = gif.index(b"\x2c")
    jpeg = save(Image.new("RGB", (8, 8)), "JPEG")
    text = zlib.compress(bytes(1_000_000))
    return {
        "png chunks": png((b"prVt", b"") for _ in range(100_000)),
        "png compressed texts": png((b"zTXt", b"k%d\0\0" % number + text) for number in range(60)),
        "jpeg segments": jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:],
        "jpeg markers without length": jpeg[:2] + b"\xff\xd9" * 100_000 + jpeg[2:],
        "jpeg junk": jpeg[:20] + KILOBYTE_PAYLOAD * 1000 + jpeg[20:],
        "jpeg scans": progressive_bomb(5_000),
        "gif sub-blocks": gif[:frame] + b"\x21\xfe" + b"\1x" * 200_000 + b"\0" + gif[frame:],
        "gif junk": gif[:frame] + KILOBYTE_PAYLOAD * 1000 + gif[frame:],
        "webp chunks": save(Image.new("RGB", (8, 8)), "WEBP") + b"junk\0\0\0\0" * 100_000,
        "png frames": png([(b"acTL", struct.pack(">II", 10_000, 0))]),
        "gif frames": gif[:-1] + gif[frame:-1] * 10_000 + b";",
        "webp frames": riff(b"VP8X", b"\2\0\0\0" + int24(7) + int24(7), (b"ANMF\x10\0\0\0" + bytes(16)) * 10_000),
    }


def expanding_profile() -> bytes:
    """A PNG whose colour profile expands to 100 MB."""
    return png([(b"iCCP", b"p\0\0" + zlib.compress(KILOBYTE_PAYLOAD * 100_000))])


def run_length_bmp() -> bytes:
    """A BMP that Pillow would decode in Python, pixel by pixel."""
    pixels = b"\1\0" * 500_000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 1000, 500, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    offset = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + bytes(range(256)) * 4 + pixels


def progressive_bomb(scans: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan is repeated, so that it has `scans` more."""
    jpeg = save(Image.linear_gradient("L").resize(size), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + jpeg[-2:]


def png(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An 8 x 8 PNG with chunks of one's own before its pixels."""
    file = save(Image.new("RGB", (8, 8)), "PNG")
    return file[:33] + b"".join(_chunk(kind, data) for kind, data in chunks) + file[33:]


def png_of_rows(
    size: tuple[int, int], depth: int, colour: int, *, interlaced: bool, missing: int = 0, level: int = 0x5A
) -> bytes:
    """A PNG of bytes `level`, whose zlib stream is whole, but `missing` bytes short of the last row's end."""
    (width, height), channels = size, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows_and_columns = [(height, width)]
    if interlaced:
        starts_and_steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
        rows_and_columns = [
            (len(range(top, height, down)), len(range(left, width, across)))
            for left, top, across, down in (*starts_and_steps, (0, 1, 1, 2))
        ]
    filtered = b"".join(
        (b"\0" + bytes([level]) * -(-columns * depth * channels // 8)) * rows
        for rows, columns in rows_and_columns
        if columns
    )
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = [(b"PLTE", bytes(48))] if colour == 3 else []
    chunks = [
        (b"IHDR", header),
        *palette,
        (b"IDAT", zlib.compress(filtered[: len(filtered) - missing])),
        (b"IEND", b""),
    ]
    return PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def riff(kind: bytes, payload: bytes, more: bytes = b"") -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload + more
    return b"RIFF" + struct.pack("<I", len(body)) + body


def int24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
