"""A picture that is not whole is refused, however its end was mended; what does no harm to its pixels is tolerated."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from support.adversary.hostile_images import png_of_rows
from support.vendor.serving_shop import noise, save
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import REFERENCE, SAFE, SAFE_DRAFT, Preprocessing


def decode(data: bytes, policy: str = SAFE) -> np.ndarray:
    reader = PillowImageDecoder(Preprocessing(32, policy=policy), max_item_bytes=1_000_000, max_pixels=1_000_000)
    return reader.decode(data).model_input


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("level", [0, 0x5A])
@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (8, 6), (1, 0), (4, 3), (16, 0), (16, 4)])
def test_a_png_whose_stream_ends_before_its_last_row_is_refused(
    depth: int, colour: int, level: int, interlaced: bool
) -> None:
    decode(png_of_rows((75, 56), depth, colour, interlaced=interlaced, level=level))
    row = 1 + -(-75 * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8)
    for missing in (1, row, 28 * row):
        cut = png_of_rows((75, 56), depth, colour, interlaced=interlaced, level=level, missing=missing)
        with pytest.raises(ItemFailure) as caught:
            decode(cut)
        assert caught.value.code == "undecodable_image"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (1, 9), (8, 8)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_the_smallest_pngs_are_whole(size: tuple[int, int], interlaced: bool) -> None:
    decode(png_of_rows(size, 8, 2, interlaced=interlaced, level=0))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_file_that_ends_early_is_refused(file_format: str, share: float) -> None:
    whole = save(noise(75, 56), file_format)
    with pytest.raises(ItemFailure) as caught:
        decode(whole[: int(share * len(whole))])
    assert caught.value.code == "undecodable_image"


def _without_end_chunk(data: bytes) -> bytes:
    return data[: data.index(b"IEND") - 4]


def _in_chunks(data: bytes) -> bytes:
    """Write the PNG's pixels in chunks of 100 bytes."""
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    stream = data[start + 8 : start + 8 + length]
    chunks = (b"IDAT" + stream[place : place + 100] for place in range(0, length, 100))
    written = ((len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks)
    return data[:start] + b"".join(written) + data[start + 12 + length :]


JPEGS = {
    "baseline": save(noise(75, 56), "JPEG"),
    "progressive": save(noise(75, 56), "JPEG", progressive=True),
    "restart markers": save(noise(75, 56), "JPEG", restart_marker_blocks=2),
    "grey": save(noise(75, 56).convert("L"), "JPEG"),
    "cmyk": save(noise(75, 56).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("policy", [SAFE, SAFE_DRAFT, REFERENCE])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_is_not_whole_is_refused_however_it_ends(name: str, policy: str) -> None:
    whole = JPEGS[name]
    decode(whole, policy)
    scan, middle = whole.index(b"\xff\xda"), len(whole) // 2
    cut = [whole[: scan + 20 + int(share * (len(whole) - scan - 22))] + b"\xff\xd9" for share in (0.05, 0.5, 0.95)]
    for damaged in (*cut, whole[:middle] + bytes(200) + whole[middle + 200 :]):
        with pytest.raises(ItemFailure) as caught:
            decode(damaged, policy)
        assert caught.value.code == "undecodable_image"


TOLERATED = {
    "png without its end": (save(noise(48, 40), "PNG"), _without_end_chunk),
    "png in small chunks": (save(noise(48, 40), "PNG"), _in_chunks),
    "png with bytes after its end": (save(noise(48, 40), "PNG"), lambda data: data + b"more" * 100),
    "gif without its trailer": (save(noise(48, 40), "GIF"), lambda data: data[:-1]),
    "jpeg with a few bytes too many": (save(noise(48, 40), "JPEG"), lambda data: data[:-2] + bytes(9) + data[-2:]),
    "jpeg with bytes after its end": (save(noise(48, 40), "JPEG"), lambda data: data + b"more" * 100),
    "webp with bytes after its end": (save(noise(48, 40), "WEBP"), lambda data: data + b"more" * 100),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_what_is_tolerated_has_the_same_pixels(name: str) -> None:
    whole, alter = TOLERATED[name]
    np.testing.assert_array_equal(decode(alter(whole)), decode(whole))
