"""Names: equal for the same thing, different as soon as anything that matters differs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_contract.identity import EmbeddingIdentity, fingerprint, rgb8_sha, sha256_hex, text_sha

IDENTITY = EmbeddingIdentity(
    ledger_id="ledger_x",
    modality="image",
    model_id="ViT-B-16/openai",
    weights_sha="a" * 64,
    precision="fp32",
    preprocessing_id="resize-224",
    truncate=False,
    content_sha="b" * 64,
)
CHANGES = [
    {"ledger_id": "ledger_y"},
    {"modality": "text"},
    {"model_id": "ViT-B-32/openai"},
    {"weights_sha": "c" * 64},
    {"precision": "fp16"},
    {"preprocessing_id": "resize-336"},
    {"truncate": True},
    {"content_sha": "d" * 64},
]


def test_every_field_is_in_both_names() -> None:
    variants = [IDENTITY, *(replace(IDENTITY, **change) for change in CHANGES)]  # type: ignore[arg-type]
    assert len({variant.cache_key() for variant in variants}) == len(CHANGES) + 1
    assert len({variant.item_key(b"secret") for variant in variants}) == len(CHANGES) + 1


def test_the_item_key_depends_on_the_secret_and_the_cache_key_does_not() -> None:
    assert IDENTITY.item_key(b"one") != IDENTITY.item_key(b"two")
    assert IDENTITY.item_key(b"one") != IDENTITY.cache_key()
    assert len(IDENTITY.item_key(b"one")) == 64


def test_the_names_are_frozen() -> None:
    assert IDENTITY.cache_key() == "dbf8fc1af58b082ed4c1e323ff2958b539ec0c9d8047574dcf2bf705a795d4e2"
    assert IDENTITY.item_key(b"secret") == "f5634603d106ae91a95aeeffde7ff6639868813f932ffe8ff6bfe4544098fa45"


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_pixels_are_named_by_size_and_content(width: int, height: int, data: st.DataObject) -> None:
    pixels = data.draw(st.binary(min_size=width * height * 3, max_size=width * height * 3))
    tagged = b"vl2v-rgb8-v1\0" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + pixels
    assert rgb8_sha(pixels, width=width, height=height) == hashlib.sha256(tagged).hexdigest()
    assert rgb8_sha(memoryview(pixels), width=width, height=height) == hashlib.sha256(tagged).hexdigest()


def test_a_turned_image_has_another_name() -> None:
    pixels = bytes(24)
    assert rgb8_sha(pixels, width=2, height=4) != rgb8_sha(pixels, width=4, height=2)
    with pytest.raises(ValueError, match="2x2 RGB8 needs 12 bytes, got 24"):
        rgb8_sha(pixels, width=2, height=2)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_is_named_by_its_bytes_and_nothing_is_normalised(text: str) -> None:
    assert text_sha(text) == sha256_hex(text.encode())


def test_composed_and_decomposed_texts_differ() -> None:
    assert text_sha("\u00e9") != text_sha("e\u0301")
    assert text_sha("cat") != text_sha("cat ")


def test_the_fingerprint_is_keyed_and_names_content_model_and_options() -> None:
    base: dict[str, Any] = {"modality": "image", "model_id": "m", "truncate": False, "content_sha": "b" * 64}
    variants: list[dict[str, Any]] = [
        {},
        {"modality": "text"},
        {"model_id": "n"},
        {"truncate": True},
        {"content_sha": "c" * 64},
    ]
    names = {fingerprint(b"pepper", **(base | change)) for change in variants}
    assert len(names) == len(variants)
    assert fingerprint(b"salt", **base) not in names
