"""The vector codec: exact, little-endian, and rounding as IEEE 754 says."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vl2v_contract.identity import sha256_hex
from vl2v_contract.vectors import Dtype, decode_vectors, encode_vector, from_base64, result_sha, to_base64

VECTORS = npst.arrays(np.float32, st.integers(1, 32), elements=st.floats(-1, 1, width=32))


@given(VECTORS, st.sampled_from(["float32", "float16"]))
def test_what_is_encoded_decodes_to_the_same_numbers(vector: np.ndarray, dtype: Dtype) -> None:
    expected = vector.astype(np.dtype(dtype))
    np.testing.assert_array_equal(decode_vectors(encode_vector(vector, dtype), dtype, 1, len(vector))[0], expected)
    np.testing.assert_array_equal(from_base64(to_base64(vector, dtype), dtype, len(vector)), expected)


def test_bytes_are_little_endian_whatever_comes_in() -> None:
    expected = struct.pack("<2f", 1.0, -0.5)
    for vector in (np.array([1.0, -0.5], ">f4"), np.array([1.0, -0.5], "<f4"), np.array([1.0, 9.0, -0.5], "<f4")[::2]):
        assert encode_vector(vector, "float32") == expected
    assert encode_vector(np.array([1.0], np.float32), "float16") == b"\x00\x3c"


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1 + 2**-11, 0x3C00),  # halfway: down to even
        (1 + 3 * 2**-11, 0x3C02),  # halfway: up to even
        (1 + 2**-11 + 2**-20, 0x3C01),  # above halfway
        (2**-25, 0x0000),  # halfway to the smallest subnormal: to zero
        (2**-24, 0x0001),
        (-(1 + 2**-11), 0xBC00),
    ],
)
def test_float16_rounds_to_nearest_ties_to_even(value: float, bits: int) -> None:
    assert encode_vector(np.array([value], np.float32), "float16") == struct.pack("<H", bits)


@given(VECTORS)
def test_a_client_that_keeps_float16_can_check_the_hash(vector: np.ndarray) -> None:
    assert result_sha(vector) == result_sha(vector.astype(np.float16))
    assert result_sha(vector) == sha256_hex(vector.astype("<f2").tobytes())


def test_wrong_sizes_and_text_are_refused() -> None:
    with pytest.raises(ValueError, match="3 float32 numbers need 12 bytes, got 8"):
        decode_vectors(bytes(8), "float32", 1, 3)
    with pytest.raises(ValueError, match="base64"):
        from_base64("not base64!", "float16", 1)
    with pytest.raises(ValueError, match="need 2 bytes"):
        from_base64(base64.b64encode(bytes(4)).decode(), "float16", 1)
