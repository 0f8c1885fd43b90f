"""The setting `max_pixels` decides how large an image may be, below Pillow's own limit and above it."""

from __future__ import annotations

import pytest
from PIL import Image

from support.vendor.image_fixtures import picture
from support.vendor.serving_shop import png_bomb, save
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import REFERENCE, SAFE, SAFE_DRAFT, Preprocessing

SIZE = 32


@pytest.mark.parametrize("policy", [SAFE, SAFE_DRAFT, REFERENCE])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_our_limit_of_pixels_decides_and_not_pillows(
    monkeypatch: pytest.MonkeyPatch, file_format: str, policy: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    reader = PillowImageDecoder(Preprocessing(SIZE, policy=policy), max_item_bytes=1_000_000, max_pixels=12_001)
    assert reader.decode(save(picture(120, 100), file_format)).model_input.shape == (SIZE, SIZE, 3)
    with pytest.raises(ItemFailure, match="at most 12,001 are decoded") as caught:
        reader.decode(save(picture(120, 101), file_format))
    assert caught.value.code == "image_too_large"


def test_a_limit_above_pillows_own_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    reader = PillowImageDecoder(Preprocessing(SIZE), max_item_bytes=1_000_000, max_pixels=300_000_000)
    with pytest.raises(ItemFailure, match="32 x 100000000 after scaling"):
        reader.decode(png_bomb(8, 25_000_000))  # 200 million pixels pass, and what they become does not


@pytest.mark.parametrize(("before", "after"), [(1_000, 150_000_000), (200_000_000, 200_000_000), (None, None)])
def test_pillows_limit_is_raised_as_far_as_needed_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, before: int | None, after: int | None
) -> None:
    """It stays on: opening a GIF or WebP of any size would allocate what it announces."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", before)
    PillowImageDecoder(Preprocessing(SIZE), max_item_bytes=1_000_000, max_pixels=300_000_000)
    assert after == Image.MAX_IMAGE_PIXELS


def gif_of_announced_size(screen: int, frame: int) -> bytes:
    """One frame that is cleared after it was shown, for which Pillow makes a whole empty picture."""
    gif = bytearray(save(Image.new("P", (8, 8)), "GIF", disposal=2))
    place = gif.index(b"\x2c")
    gif[6:10] = screen.to_bytes(2, "little") * 2
    gif[place + 5 : place + 9] = frame.to_bytes(2, "little") * 2
    return bytes(gif)


def webp_of_announced_size(kind: bytes) -> bytes:
    def chunk(name: bytes, head: bytes) -> bytes:
        return (
            b"RIFF" + (len(head) + 12).to_bytes(4, "little") + b"WEBP" + name + len(head).to_bytes(4, "little") + head
        )

    side = 13_000
    canvas = {
        b"VP8X": bytes(4) + (side - 1).to_bytes(3, "little") * 2,
        b"VP8L": b"\x2f" + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(8),
        b"VP8 ": b"\x10\0\0\x9d\x01\x2a" + side.to_bytes(2, "little") * 2 + bytes(8),
    }
    return chunk(kind, canvas[kind])


@pytest.mark.parametrize(
    "data",
    [
        gif_of_announced_size(13_000, 8),
        gif_of_announced_size(8, 13_000),
        *map(webp_of_announced_size, (b"VP8X", b"VP8L", b"VP8 ")),
    ],
    ids=["screen", "frame", "VP8X", "VP8L", "VP8"],
)
def test_a_canvas_that_is_too_large_is_refused_before_pillow_makes_it(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(Image, "open", None)
    reader = PillowImageDecoder(Preprocessing(SIZE), max_item_bytes=1_000_000, max_pixels=50_000_000)
    with pytest.raises(ItemFailure, match="13000 x 13000 pixels") as caught:
        reader.decode(data)
    assert caught.value.code == "image_too_large"
