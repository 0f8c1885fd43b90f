"""Pixel policies: `reference` is open_clip's own transform, `safe` what a person would see, drafts nearly exact."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.vendor.image_fixtures import exif_block, image_files, picture
from support.vendor.serving_shop import save
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_contract.identity import rgb8_sha, sha256_hex
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.open_clip_files import build_model
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.images import image_decoding
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import (
    REFERENCE,
    SAFE,
    SAFE_DRAFT,
    Preprocessing,
    choose_policy,
    preprocessing_of,
)

SIZE = 32
FILES = image_files()
POLICIES = (SAFE, SAFE_DRAFT, REFERENCE)


def decoder(policy: str, size: int = SIZE, **parameters: Any) -> PillowImageDecoder:
    preprocessing = Preprocessing(size, policy=policy, **parameters)
    return PillowImageDecoder(preprocessing, max_item_bytes=1_000_000, max_pixels=50_000_000)


def open_clips_pixels(data: bytes, **parameters: Any) -> np.ndarray:
    """`[S, S, 3]` RGB8 out of open_clip's evaluation transform, before it normalises."""
    from open_clip.transform import image_transform

    transform = image_transform(SIZE, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), **parameters)
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
        scaled = transform(image) * 255
    rounded = scaled.round()
    assert (scaled - rounded).abs().max() < 1e-4
    return rounded.to(torch.uint8).permute(1, 2, 0).numpy()


def test_there_are_forty_kinds_of_files() -> None:
    assert len(FILES) >= 40
    assert len(set(FILES.values())) == len(FILES)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", FILES)
def test_the_reference_is_open_clips_transform_bit_for_bit(name: str, interpolation: str, resize_mode: str) -> None:
    how = {"interpolation": interpolation, "resize_mode": resize_mode}
    found = decoder(REFERENCE, **how).decode(FILES[name]).model_input
    np.testing.assert_array_equal(found, open_clips_pixels(FILES[name], **how))


def test_reference_vectors_are_open_clips_alone_and_in_a_batch(tmp_path: Path) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    spec = write_tiny_clip(tmp_path)
    model, reference = OpenClipModel(spec), build_model(spec).eval()
    transform = image_transform_v2(PreprocessCfg(**reference.visual.preprocess_cfg), is_train=False)
    decode = decoder(REFERENCE).decode
    pixels = np.stack([decode(data).model_input for data in list(FILES.values())])
    with torch.inference_mode():
        batch = torch.stack([transform(Image.open(io.BytesIO(data))) for data in FILES.values()])
        expected = reference.encode_image(batch, normalize=True).numpy()
    found = np.concatenate([model.encode_images(part) for part in (pixels[:32], pixels[32:])])
    alone = np.concatenate([model.encode_images(image[None]) for image in pixels])
    assert (found * expected).sum(axis=1).min() >= 0.99999
    assert (found * alone).sum(axis=1).min() >= 0.999999
    assert np.ptp(expected @ expected.T) > 0.01  # the files are not all one vector to this model


@pytest.mark.parametrize(
    "name",
    [
        *("PNG RGBA", "PNG LA", "PNG P", "PNG P+tRNS table", "PNG I;16", "JPEG EXIF 6", "WEBP RGBA", "PNG EXIF 6"),
        *("PNG I;16+tRNS", "PNG RGB16+tRNS", "PNG L4+tRNS"),
    ],
)
def test_the_policies_differ_where_they_say_so(name: str) -> None:
    safe, reference = (decoder(policy).decode(FILES[name]).model_input.astype(int) for policy in (SAFE, REFERENCE))
    assert np.abs(safe - reference).mean() > 0.5


@pytest.mark.parametrize(
    "name", ["JPEG wide", "PNG odd", "WEBP tall", "BMP large", "JPEG CMYK", "PNG L", "PNG animated"]
)
def test_the_policies_agree_on_plain_images(name: str) -> None:
    safe, reference = (decoder(policy).decode(FILES[name]) for policy in (SAFE, REFERENCE))
    np.testing.assert_array_equal(safe.model_input, reference.model_input)


@pytest.mark.parametrize(
    "name",
    [
        *("PNG RGBA", "PNG LA", "PNG P+tRNS table", "PNG RGB+tRNS", "PNG I;16", "JPEG CMYK"),
        *("PNG I;16+tRNS", "PNG RGB16+tRNS", "PNG L4+tRNS"),
    ],
)
def test_flattening_in_bands_leaves_no_seam(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = decoder(SAFE).decode(FILES[name]).model_input
    monkeypatch.setattr(image_decoding, "_BAND_PIXELS", 200)
    np.testing.assert_array_equal(decoder(SAFE).decode(FILES[name]).model_input, whole)


@pytest.mark.parametrize("policy", POLICIES)
def test_names_do_not_depend_on_the_policy(policy: str) -> None:
    exact = FILES["PNG input"]
    decoded = decoder(policy).decode(exact)
    assert decoded.content_sha == rgb8_sha(decoded.model_input.tobytes(), width=SIZE, height=SIZE)
    rotated = save(picture(SIZE, SIZE), "PNG", exif=exif_block(6))
    assert decoder(policy).decode(rotated).content_sha == sha256_hex(rotated)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_name_that_needs_no_decoding_is_the_same(policy: str) -> None:
    files = [*FILES.values(), save(picture(SIZE, SIZE), "PNG", exif=exif_block(6)), save(picture(SIZE, SIZE), "BMP")]
    names = [(decoder(policy).name_of_bytes(data), decoder(policy).decode(data).content_sha) for data in files]
    assert [both for both in names if both[0] not in (None, both[1])] == []
    assert 0 < sum(name is None for name, _ in names) < 10


@pytest.mark.parametrize("policy", POLICIES)
def test_the_preprocessing_id_carries_the_policy(tmp_path: Path, policy: str) -> None:
    spec = replace(write_tiny_clip(tmp_path), policy=policy)
    info = OpenClipModel(spec).info
    assert info.preprocessing_id.startswith(f"{policy}/")
    assert preprocessing_of(info) == Preprocessing(SIZE, policy=policy)
    assert preprocessing_of(info).id == info.preprocessing_id


def test_ids_that_buyers_hold_do_not_change() -> None:
    mean, std = "mean0.4815,0.4578,0.4082", "std0.2686,0.2613,0.2758"
    assert Preprocessing(224).id == f"safe-1/shortest-bicubic-224/{mean}/{std}/d3775af8c754"


def test_the_settings_name_a_policy() -> None:
    assert choose_policy("safe", jpeg_draft=False) is SAFE
    assert choose_policy("safe", jpeg_draft=True) is SAFE_DRAFT
    assert choose_policy("reference", jpeg_draft=False) is REFERENCE
    with pytest.raises(ModelLoadFailed, match="jpeg_draft"):
        choose_policy("reference", jpeg_draft=True)


@pytest.mark.parametrize("size", [(127, 400), (400, 127), (96, 96)])
def test_drafts_leave_small_photographs_exact(size: tuple[int, int]) -> None:
    data = save(picture(*size), "JPEG", quality=90)
    np.testing.assert_array_equal(decoder(SAFE_DRAFT).decode(data).model_input, decoder(SAFE).decode(data).model_input)


@pytest.mark.parametrize("orientation", [1, 6])
def test_drafts_of_large_photographs_are_close(orientation: int) -> None:
    data = save(picture(640, 480), "JPEG", quality=90, exif=exif_block(orientation))
    draft, exact = (decoder(policy).decode(data).model_input.astype(int) for policy in (SAFE_DRAFT, SAFE))
    error = np.abs(draft - exact)
    assert 0 < error.mean() <= 0.5
    assert error.max() <= 8


def test_drafts_change_nothing_but_jpeg() -> None:
    for name in ("PNG large", "WEBP large", "BMP large"):
        np.testing.assert_array_equal(
            decoder(SAFE_DRAFT).decode(FILES[name]).model_input, decoder(SAFE).decode(FILES[name]).model_input
        )
