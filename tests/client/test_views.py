"""Views replay exactly, and any image file becomes plain RGB or a clear refusal."""

import hashlib
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v_client.core.errors import DataError
from vl2v_client.data.images import MAX_FILE_BYTES, encode_png, image_size, load_rgb, read_file
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import View, canonical_view, views_for

NAME = "ab" * 32


def _picture(width: int = 40, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _pixel(path: Path) -> tuple[int, ...]:
    return tuple(np.asarray(load_rgb(path))[0, 0].tolist())


def test_views_depend_on_seed_content_and_index_only() -> None:
    views = views_for(NAME, (40, 30), 6, seed=1)
    assert views[0] == canonical_view() == View()
    assert views_for(NAME, (40, 30), 3, seed=1) == views[:3]
    assert len(set(views)) == 6
    assert views_for(NAME, (40, 30), 6, seed=2)[1:] != views[1:]
    assert views_for("cd" * 32, (40, 30), 6, seed=1)[1:] != views[1:]
    assert views_for(NAME, (40, 30), 0, seed=1) == []


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (500, 3)])
def test_crops_lie_inside_the_image_and_keep_enough_of_it(size: tuple[int, int]) -> None:
    for view in views_for(NAME, size, 200, seed=0):
        if view.crop is not None:
            left, top, width, height = view.crop
            assert left >= 0
            assert top >= 0
            assert left + width <= size[0]
            assert top + height <= size[1]
            assert width * height >= 0.65 * size[0] * size[1]  # 0.7, less the rounding of both sides


def test_json_names_only_what_differs() -> None:
    assert canonical_view().to_json() == {}
    assert View(crop=(1, 2, 3, 4), flip=True).to_json() == {"crop": [1, 2, 3, 4], "flip": True}


def test_each_operation_does_what_its_name_says() -> None:
    image = _picture(8, 8)
    pixels = np.asarray(image)
    assert (render_view(image, View(), 8) == pixels).all()  # the identity at its own size
    assert (render_view(image, View(flip=True), 8) == pixels[:, ::-1]).all()
    assert (render_view(image, View(crop=(2, 1, 4, 4)), 4) == pixels[1:5, 2:6]).all()
    assert (render_view(image, View(brightness=0), 8) == 0).all()
    grey = render_view(image, View(grayscale=True), 8)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert render_view(red, View(hue=333), 2)[0, 0].argmax() == 1  # a third of the circle on from red is green


def test_a_crop_outside_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="outside an image of 40x30"):
        render_view(_picture(), View(crop=(30, 0, 11, 5)), 8)


def test_another_process_in_another_order_renders_the_same_bytes(tmp_path: Path) -> None:
    _picture(57, 41).save(tmp_path / "a.png")
    script = """
import hashlib, sys
from pathlib import Path
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import views_for
image = load_rgb(Path(sys.argv[1]))
views = list(enumerate(views_for("ab" * 32, image.size, 8, seed=5)))
shas = {i: hashlib.sha256(render_view(image, view, 32).tobytes()).hexdigest() for i, view in reversed(views)}
print(*[shas[i] for i in range(8)])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    image = load_rgb(tmp_path / "a.png")
    here = [
        hashlib.sha256(render_view(image, v, 32).tobytes()).hexdigest() for v in views_for(NAME, image.size, 8, seed=5)
    ]
    assert ran.stdout.split() == here


def test_png_is_lossless() -> None:
    pixels = render_view(_picture(), View(), 16)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(pixels)))) == pixels).all()


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    kinds = {
        "grey16.png": (Image.fromarray(np.full((2, 2), 257 * 200, dtype=np.uint16)), (200, 200, 200)),
        "clear.png": (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (255, 255, 255)),
        "half.png": (Image.new("LA", (2, 2), (0, 128)), (127, 127, 127)),
        "palette.png": (Image.new("RGB", (2, 2), (9, 8, 7)).quantize(2), (9, 8, 7)),
        "bits.png": (Image.new("1", (2, 2), 1), (255, 255, 255)),
        "cmyk.tif": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    }
    for name, (image, expected) in kinds.items():
        image.save(tmp_path / name)
        assert load_rgb(tmp_path / name).mode == "RGB"
        assert _pixel(tmp_path / name) == expected, name


def test_the_first_frame_of_an_animation_and_a_transparent_palette(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert _pixel(tmp_path / "a.gif") == (255, 0, 0)
    Image.new("P", (2, 2), 0).save(tmp_path / "p.png", transparency=0)
    assert _pixel(tmp_path / "p.png") == (255, 255, 255)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind}"
    _picture(40, 30).save(path, exif=exif)
    size = (30, 40) if orientation > 4 else (40, 30)
    assert load_rgb(path).size == image_size(path.read_bytes(), path) == size


def _png_that_claims(width: int, height: int) -> bytes:

    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\x08IDAT"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"not an image at all", "is not an image"),
        (encode_png(np.asarray(_picture()))[:200], "is a broken image"),
        (_png_that_claims(20_000, 20_000), "too many to decode"),
    ],
)
def test_a_bad_file_is_named_with_a_remedy(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(DataError) as refused:
        load_rgb(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for read in (load_rgb, read_file):
        with pytest.raises(DataError, match=r"gone\.png cannot be read"):
            read(tmp_path / "gone.png")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cat.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path)
    with pytest.raises(DataError, match=r"cat\.png cannot be read"):
        read_file(path)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="it is larger than"):
        read_file(path)
