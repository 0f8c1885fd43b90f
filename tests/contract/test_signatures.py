"""Signatures: deterministic, and good for one kind of message only."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_contract.records import (
    SigningKey,
    act_message,
    head_message,
    key_id_of,
    receipt_message,
    recompute_message,
    successor_message,
    verify,
)

KEY = SigningKey.from_seed(b"\x07" * 32)
BODIES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 9) | st.text("xyz", max_size=3))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_signature_fits_its_message_only(message: bytes, other: bytes) -> None:
    signature = KEY.sign(message)
    assert signature == KEY.sign(message)
    assert verify(KEY.public_key, message, signature)
    assert verify(KEY.public_key, other, signature) == (message == other)


@given(BODIES)
def test_a_head_never_passes_for_a_recompute_note(body: dict[str, int | str]) -> None:
    assert not verify(KEY.public_key, recompute_message(body), KEY.sign(head_message(body)))
    assert not verify(KEY.public_key, head_message(body), KEY.sign(recompute_message(body)))


def test_no_kind_of_message_can_begin_as_another() -> None:
    messages = [
        receipt_message("00" * 32),
        head_message({}),
        recompute_message({}),
        successor_message(KEY.public_key),
        act_message("00" * 32),
    ]
    tags = [message.split(b"\n")[0] + b"\n" for message in messages]
    assert all(not one.startswith(other) for one in tags for other in tags if one is not other)


def test_a_key_survives_as_its_seed() -> None:
    key = SigningKey.generate()
    again = SigningKey.from_seed(key.seed())
    assert (again.public_key, again.key_id) == (key.public_key, key.key_id)
    assert key.sign(b"x") == again.sign(b"x")
    assert len(key.key_id) == 16
    assert key.seed().hex() not in repr(key)
    with pytest.raises(ValueError):  # noqa: PT011  # the library's own words
        SigningKey.from_seed(b"short")


def test_the_test_vector_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    key = SigningKey.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    assert key.key_id == key_id_of(public)
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert base64.b64decode(key.sign(b"\x72")).hex() == signature


@pytest.mark.parametrize(("public_key", "signature"), [("", ""), ("!", "!"), ("AAAA", "AAAA"), ("\u00e9", "AAAA")])
def test_garbage_never_verifies_and_never_raises(public_key: str, signature: str) -> None:
    assert not verify(public_key, b"x", signature)
    assert not verify(KEY.public_key, b"x", signature)
