"""What an image file's structure costs to read, bounded before Pillow reads it.

Pillow walks markers, chunks and sub-blocks in Python, and libjpeg decodes each scan of a progressive file over the
whole image, so a small file with very many of them keeps a thread busy for minutes. This module walks the same
structure, a bounded number of steps far, and decodes nothing. What is merely broken is left to Pillow to refuse, but
for the checksums of a PNG's pixels, which Pillow skips, for rows that do not come, and for a JPEG's missing data.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Final

import simplejpeg

from vl2v_vendor.domain.errors import ItemFailure

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

MAX_FRAMES: Final = 1_000
MAX_SCANS: Final = 100
"""Scans of a JPEG; encoders write about ten."""
MAX_MARKERS: Final = 2_000
"""Segments of a JPEG: a profile or depth map of 16 MB has 256."""
MAX_CHUNKS: Final = 10_000
"""Chunks of a PNG or WebP: 80 MB in libpng's chunks of 8 kB."""
MAX_COMPRESSED_TEXTS: Final = 16
"""Compressed texts of a PNG; Pillow expands each to up to 1 MiB."""
MAX_SUB_BLOCKS: Final = 20_000
"""Sub-blocks of a GIF, 255 bytes each, up to its first frame."""

_TOO_MANY_FRAMES: Final = f"more than {MAX_FRAMES:,} frames, of which only the first counts"
_MAX_JPEG_JUNK_BYTES: Final = 65_536
# A marker, whatever fill bytes come before it; not a stuffed zero and not a restart, of which a scan may have many.
_JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG_EOI, _JPEG_SOS = 0xD9, 0xDA
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_JPEG_WITHOUT_LENGTH: Final = frozenset({0x01, 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)})
# libjpeg's warnings of less data than pixels, or more; cameras write a few bytes too many
_JPEG_DAMAGE: Final = re.compile(r"Premature end|Corrupt JPEG data: (?!\d extraneous)")
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# first column and row of each pass, and the steps between
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATED_BYTES: Final = 65_536
_RIFF: Final = b"RIFF"
_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C


def check_structure(data: bytes) -> tuple[int, int] | None:
    """Walk the file's own table of contents.

    Returns:
        Width and height that a GIF or WebP announces: Pillow allocates as much on opening, before it tells the size.

    Raises:
        ItemFailure: `image_too_large`, naming what there is too much of; `unsupported_image_format`; or
            `undecodable_image`.
    """
    for signature, check in _CHECKS.items():
        if data.startswith(signature) and (signature != _RIFF or data[8:12] == b"WEBP"):
            return check(data)
    raise ItemFailure("unsupported_image_format", f"the content is none of {', '.join(FORMATS)}; convert it to PNG")


def _check_jpeg(data: bytes) -> None:
    position, markers, junk_bytes, scans, components, is_progressive = 2, 0, 0, 0, 0, False
    while found := _JPEG_MARKER.search(data, position):
        marker, markers = found[1][0], markers + 1
        if scans == 0:
            junk_bytes += found.start() - position
        if markers > MAX_MARKERS or junk_bytes > _MAX_JPEG_JUNK_BYTES:
            raise _too_much(f"more than {MAX_MARKERS:,} segments, or data between them")
        position = found.end()
        if marker == _JPEG_EOI and scans > 0:
            return
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        segment = data[position : position + 8]
        if marker in _JPEG_FRAMES:
            components, is_progressive = segment[7] if len(segment) == 8 else 0, marker in _JPEG_PROGRESSIVE
        if marker == _JPEG_SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise _too_much(f"more than {MAX_SCANS} scans")
            if not is_progressive and segment[2:3] == bytes([components]):
                return  # the whole image in one scan: the decoder reads no further
        position += max(2, int.from_bytes(segment[:2], "big"))


def check_jpeg_data(data: bytes) -> None:
    """Decode a JPEG at an eighth of its size, for libjpeg's warnings: it makes pixels up, and Pillow does not tell.

    Raises:
        ItemFailure: `undecodable_image`: the file has less data than its pixels need, or more.
    """
    try:
        simplejpeg.decode_jpeg(
            data, "GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1, min_factor=8, strict=True
        )
    except ValueError as error:  # of what it cannot decode, Pillow has the say
        if _JPEG_DAMAGE.search(str(error)):
            detail = "the file's pixels are cut off or damaged; send the whole file again"
            raise ItemFailure("undecodable_image", detail) from error


def _check_png(data: bytes) -> None:
    position, texts = 8, 0
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return
        content = memoryview(data)[position + 4 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]  # shorter where the file is cut off
        if kind == b"IDAT" and len(checksum) == 4 and zlib.crc32(content).to_bytes(4, "big") != checksum:
            raise ItemFailure("undecodable_image", "the file's pixels do not match their checksum; send it again")
        if kind == b"acTL" and int.from_bytes(data[position + 8 : position + 12], "big") > MAX_FRAMES:
            raise _too_much(_TOO_MANY_FRAMES)
        texts += kind in (b"zTXt", b"iTXt")
        if texts > MAX_COMPRESSED_TEXTS:
            raise _too_much(f"more than {MAX_COMPRESSED_TEXTS} compressed texts")
        position += length + 12
    raise _too_much(f"more than {MAX_CHUNKS:,} chunks")


def check_png_rows(data: bytes) -> None:
    """Inflate a PNG's pixels as far as its last row needs, in pieces: Pillow leaves rows that do not come as they are.

    Raises:
        ItemFailure: `undecodable_image`: the stream ends before.
    """
    width, height, depth, colour, is_interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    needed = 0
    for left, top, across, down in _ADAM7 if is_interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            needed += rows * (1 + -(-columns * depth * _PNG_CHANNELS[colour] // 8))
    stream, position = zlib.decompressobj(), 8
    while position + 12 <= len(data) and needed > 0 and not stream.eof:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = min(position + 8 + length, len(data))
        for place in range(position + 8, end if kind == b"IDAT" else 0, _INFLATED_BYTES):
            rest = data[place : min(end, place + _INFLATED_BYTES)]
            while rest and needed > 0 and not stream.eof:
                needed -= len(stream.decompress(rest, _INFLATED_BYTES))
                rest = stream.unconsumed_tail
        position = end + 4
    if needed > 0:
        raise ItemFailure("undecodable_image", "the file's pixels are cut off; send the whole file again")


def _check_webp(data: bytes) -> tuple[int, int] | None:
    position, frames = 12, 0
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return _webp_size(data)
        kind, length = struct.unpack_from("<4sI", data, position)
        frames += kind == b"ANMF"
        if frames > MAX_FRAMES:
            raise _too_much(_TOO_MANY_FRAMES)
        position += 8 + length + length % 2
    raise _too_much(f"more than {MAX_CHUNKS:,} chunks")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the size of the canvas, by the first chunk: extended, lossless or lossy; None if the file ends before."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


def _check_gif(data: bytes) -> tuple[int, int] | None:
    position, frames, steps = 13 + _gif_palette_bytes(data[10:11]), 0, 0
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    while position < len(data) and steps <= MAX_SUB_BLOCKS:
        block = data[position]
        if block == _GIF_EXTENSION:
            position += 2
        elif block == _GIF_FRAME:
            frames += 1
            if frames == 1:  # which may be larger than the screen
                left, top, across, down = (
                    int.from_bytes(data[at : at + 2], "little") for at in range(position + 1, position + 9, 2)
                )
                width, height = max(width, left + across), max(height, top + down)
            position += 11 + _gif_palette_bytes(data[position + 9 : position + 10])
        else:
            if frames:
                break  # the trailer, or nothing that would be read
            position, steps = position + 1, steps + 1
            continue
        if frames > MAX_FRAMES:
            raise _too_much(_TOO_MANY_FRAMES)
        while position < len(data) and data[position] and steps <= MAX_SUB_BLOCKS:
            position, steps = position + 1 + data[position], steps + 1
        position, steps = position + 1, steps + 1
    if steps > MAX_SUB_BLOCKS and frames == 0:
        raise _too_much(f"more than {MAX_SUB_BLOCKS:,} blocks before its first frame")
    return width, height


def _gif_palette_bytes(flags: bytes) -> int:
    """Return the size in bytes of the palette that the flags byte announces."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _check_bmp(data: bytes) -> None:
    # Headers of 40 bytes and more have a field for the compression. Pillow's decoder for run lengths, 1 and 2, is
    # written in Python: 20 MB would take ten seconds.
    if int.from_bytes(data[14:18], "little") >= 40 and int.from_bytes(data[30:34], "little") in (1, 2):
        raise ItemFailure("unsupported_image_format", "run-length encoded BMP is not read; convert it to PNG")


def _too_much(what: str) -> ItemFailure:
    return ItemFailure("image_too_large", f"the file has {what}; save the image anew with a common program")


_CHECKS: Final[dict[bytes, Callable[[bytes], tuple[int, int] | None]]] = {
    b"\xff\xd8\xff": _check_jpeg,
    b"\x89PNG\r\n\x1a\n": _check_png,
    _RIFF: _check_webp,
    b"GIF87a": _check_gif,
    b"GIF89a": _check_gif,
    b"BM": _check_bmp,
}
