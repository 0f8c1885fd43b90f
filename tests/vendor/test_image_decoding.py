"""Pixels: bit-equal to open_clip's own transform for RGB, one declared treatment for everything else."""

from __future__ import annotations

import io
import resource
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from support.vendor.image_fixtures import png_with_transparent_colour
from support.vendor.serving_shop import noise, png, png_bomb, save
from vl2v_contract.identity import rgb8_sha, sha256_hex
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import REFERENCE, SAFE, Preprocessing

SIZE = 32


def decoder(size: int = SIZE, **parameters: object) -> PillowImageDecoder:
    preprocessing = Preprocessing(size, **parameters)  # type: ignore[arg-type]
    return PillowImageDecoder(preprocessing, max_item_bytes=1_000_000, max_pixels=50_000_000)


def pixels_of(data: bytes) -> np.ndarray:
    return decoder().decode(data).model_input


def failure_of(data: bytes) -> ItemFailure:
    with pytest.raises(ItemFailure) as caught:
        decoder().decode(data)
    return caught.value


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "shape", [(500, 375), (375, 500), (224, 224), (32, 300), (301, 224), (1, 1), (1, 7), (333, 17), (223, 225)]
)
def test_rgb_pixels_equal_open_clips_bit_for_bit(
    size: int, resize_mode: str, interpolation: str, shape: tuple[int, int]
) -> None:
    from open_clip.transform import image_transform

    transform = image_transform(size, is_train=False, resize_mode=resize_mode, interpolation=interpolation)
    transform.transforms = transform.transforms[:-2]  # up to, not including, ToTensor and Normalize
    image = noise(*shape)
    found = decoder(size, resize_mode=resize_mode, interpolation=interpolation).decode(save(image, "PNG"))
    assert found.model_input.dtype == np.uint8
    np.testing.assert_array_equal(found.model_input, np.asarray(transform(image)))


def test_an_image_at_the_input_size_is_left_alone_and_named_by_its_pixels() -> None:
    image = noise(SIZE, SIZE)
    exact = rgb8_sha(image.tobytes(), width=SIZE, height=SIZE)
    for level in (0, 9):
        decoded = decoder().decode(save(image, "PNG", compress_level=level))
        np.testing.assert_array_equal(decoded.model_input, np.asarray(image))
        assert decoded.content_sha == exact


@pytest.mark.parametrize(
    "data",
    [
        save(noise(SIZE, SIZE), "JPEG"),
        save(noise(SIZE + 1, SIZE), "PNG"),
        save(noise(SIZE, SIZE).convert("RGBA"), "PNG"),
        save(noise(SIZE, SIZE).convert("L"), "PNG"),
        save(noise(SIZE, SIZE), "PNG", transparency=(1, 2, 3)),
        save(noise(SIZE, SIZE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        save(noise(SIZE, SIZE), "PNG", save_all=True, append_images=[noise(SIZE, SIZE, 1)]),
    ],
    ids=["jpeg", "other size", "alpha", "grey", "transparent colour", "rotated", "animated"],
)
def test_anything_else_is_named_by_its_bytes(data: bytes) -> None:
    assert decoder().decode(data).content_sha == sha256_hex(data)


def _with_damaged_pixels(data: bytes, *, mend_checksum: bool) -> bytes:
    """A PNG whose first IDAT chunk has other bytes in its middle."""
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    chunk = bytearray(data[start : start + 4 + length])
    chunk[4 + length // 2 : 4 + length // 2 + 32] = bytes(32)
    end = start + len(chunk)
    checksum = zlib.crc32(chunk).to_bytes(4, "big") if mend_checksum else data[end : end + 4]
    return data[:start] + bytes(chunk) + checksum + data[end + 4 :]


@pytest.mark.parametrize("policy", [SAFE, REFERENCE])
@pytest.mark.parametrize("size", [SIZE, SIZE + 9])
@pytest.mark.parametrize(("compress_level", "mend_checksum"), [(9, True), (9, False), (0, False)])
def test_damaged_pixels_of_a_png_are_never_taken_for_an_image(
    policy: str, size: int, compress_level: int, mend_checksum: bool
) -> None:
    rows, columns = np.mgrid[0:size, 0:size]
    picture = Image.fromarray(np.stack([rows * 5, columns * 5, rows * columns // 8], axis=-1).astype(np.uint8))
    whole = save(picture, "PNG", compress_level=compress_level)
    reader = PillowImageDecoder(Preprocessing(SIZE, policy=policy), max_item_bytes=1_000_000, max_pixels=1_000_000)
    reader.decode(whole)
    with pytest.raises(ItemFailure) as caught:
        reader.decode(_with_damaged_pixels(whole, mend_checksum=mend_checksum))
    assert caught.value.code == "undecodable_image"


def test_the_checksum_of_a_pngs_pixels_is_read() -> None:
    """Damage that zlib's own, weaker checksum does not see, and so Pillow neither."""
    data = bytearray(save(noise(SIZE, SIZE), "PNG", compress_level=0))
    place = data.index(b"IDAT") + 500
    while not (data[place] < 255 and data[place + 1] > 1 and data[place + 2] < 255):
        place += 1
    data[place] += 1
    data[place + 1] -= 2
    data[place + 2] += 1
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    assert failure_of(bytes(data)).code == "undecodable_image"


def test_exif_orientation_6_is_applied() -> None:
    image = noise(48, 32)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = save(image.transpose(Image.Transpose.ROTATE_270), "PNG")
    for file_format in ("PNG", "WEBP"):
        found = pixels_of(save(image, file_format, exif=exif.tobytes(), lossless=True))
        np.testing.assert_array_equal(found, pixels_of(upright))


def test_a_broken_exif_block_counts_as_upright() -> None:
    image = noise(48, 32)
    broken = save(image, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels_of(broken), pixels_of(save(image, "PNG")))


def test_transparency_is_composited_on_white() -> None:
    assert (pixels_of(png((255, 0, 0, 0), mode="RGBA")) == 255).all()
    assert (pixels_of(png((0, 0), mode="LA")) == 255).all()
    assert abs(int(pixels_of(png((0, 0, 0, 128), mode="RGBA"))[0, 0, 0]) - 127) <= 1


def test_a_palette_with_transparency_becomes_rgba_before_scaling() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (20, 0, 40, 40))
    found = pixels_of(save(image, "PNG", transparency=0))
    assert (found[:, :14] == 255).all()  # the transparent red half
    assert (found[:, 18:] == (0, 0, 255)).all()


GREY_DEPTHS = [(1, 1), (2, 1), (4, 9), (8, 77), (16, 0), (16, 1), (16, 0x1234), (16, 65535)]


@pytest.mark.parametrize("size", [SIZE, SIZE + 9])
@pytest.mark.parametrize(
    ("depth", "colour"),
    [
        *((depth, (level,)) for depth, level in GREY_DEPTHS),
        (8, (1, 2, 3)),
        (16, (1, 2, 3)),
        (16, (0x1234, 0x5678, 255)),
    ],
)
def test_the_transparent_colour_of_a_png_is_white_at_every_depth(
    depth: int, colour: tuple[int, ...], size: int
) -> None:
    levels = np.full((size, size, len(colour)), colour, dtype=np.uint16)
    data = png_with_transparent_colour(levels if len(colour) == 3 else levels[..., 0], depth, *colour)
    assert (pixels_of(data) == 255).all()


@pytest.mark.parametrize(
    ("depth", "colour", "transparent", "expected"),
    [
        (2, (1,), (2,), 85),
        (4, (1,), (0,), 17),
        (16, (0x1234,), (0x1235,), 18),
        (16, (0x0100,), (1,), 1),
        (16, (0x1200, 0x5600, 0x9A00), (0x12, 0x56, 0x9A), (18, 86, 154)),
        (16, (0x1234, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9BBC), (18, 86, 154)),
        (16, (0x1234, 0x5678, 0x9ABC), (0x12FF, 0x5600, 0x9ABC), 255),
    ],
)
def test_other_colours_stay_but_for_those_of_the_same_high_bytes_in_16_bit_rgb(
    depth: int, colour: tuple[int, ...], transparent: tuple[int, ...], expected: int | tuple[int, ...]
) -> None:
    levels = np.full((40, 40, len(colour)), colour, dtype=np.uint16)
    data = png_with_transparent_colour(levels if len(colour) == 3 else levels[..., 0], depth, *transparent)
    assert (pixels_of(data) == expected).all()


def test_only_the_transparent_part_of_a_16_bit_image_is_white() -> None:
    levels = np.full((40, 40), 0x1235, dtype=np.uint16)
    levels[:, :20] = 0x1234
    found = pixels_of(png_with_transparent_colour(levels, 16, 0x1234))
    assert (found[:, :14] == 255).all()
    assert (found[:, 18:] == 18).all()


def test_cmyk_becomes_rgb() -> None:
    image = noise(SIZE, SIZE).convert("CMYK")
    data = save(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(data), expected)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (257, 1), (128 * 257, 128), (65535, 255)])
def test_16_bit_grey_is_scaled(level: int, expected: int) -> None:
    data = save(Image.fromarray(np.full((40, 40), level, dtype=np.uint16)), "PNG")
    assert (pixels_of(data) == expected).all()


@pytest.mark.parametrize("file_format", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_counts(file_format: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black")]
    data = save(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert (pixels_of(data) == 255).all()


def test_one_pixel_is_enough() -> None:
    assert (pixels_of(png("blue", (1, 1))) == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_item"),
        (b"this is a text named cat.png", "unsupported_image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_format"),
        (save(noise(40, 40), "TIFF"), "unsupported_image_format"),
        (save(noise(40, 40), "JPEG")[:-200], "undecodable_image"),
        (png()[:40], "undecodable_image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "undecodable_image"),
        (b"\xff\xd8\xff" + b"\0" * 1_000_000, "image_too_large"),
        (save(Image.new("RGB", (1, 20_000_000 // SIZE)), "PNG"), "image_too_large"),
    ],
    ids=["empty", "text", "svg", "tiff", "truncated jpeg", "truncated png", "no png", "many bytes", "needle"],
)
def test_bad_input_has_its_own_error(data: bytes, code: str) -> None:
    failure = failure_of(data)
    assert failure.code == code
    assert failure.detail


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    bomb = png_bomb(13_000, 13_000)
    assert len(bomb) < 100_000
    before_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    assert failure_of(bomb).code == "image_too_large"
    assert time.process_time() - started < 0.005
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kilobytes < 20_000
    assert failure_of(png_bomb(20_000, 20_000)).code == "image_too_large"


def test_the_preprocessing_id_names_every_parameter() -> None:
    ids = {
        Preprocessing(224).id,
        Preprocessing(32).id,
        Preprocessing(224, mean=(0.5, 0.5, 0.5)).id,
        Preprocessing(224, std=(0.26862955, 0.26130258, 0.27577711)).id,
        Preprocessing(224, interpolation="bilinear").id,
        Preprocessing(224, resize_mode="squash").id,
        Preprocessing(224, policy="safe-2").id,
    }
    assert len(ids) == 7
    assert Preprocessing(224).id.startswith("safe-1/shortest-bicubic-224/")
