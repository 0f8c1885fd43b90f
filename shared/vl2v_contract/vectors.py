"""The one vector codec: float32 or float16, little endian, raw or base64; and the hash that receipts carry."""

import base64
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import sha256_hex

Dtype = Literal["float32", "float16"]
FloatVector: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

_WIRE_DTYPE: dict[Dtype, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def encode_vector(vector: FloatVector | Sequence[FloatVector], dtype: Dtype) -> bytes:
    """Encode a `[D]` vector, or N of them in order, as little-endian bytes; float16 rounds to nearest, ties to even."""
    return np.asarray(vector, dtype=_WIRE_DTYPE[dtype]).tobytes()


def decode_vectors(data: bytes | memoryview, dtype: Dtype, count: int, dimension: int) -> FloatVector:
    """Decode little-endian bytes to `[count, dimension]` of `dtype`, read-only and not copied.

    Raises:
        ValueError: The bytes do not hold exactly so many numbers.
    """
    wire = _WIRE_DTYPE[dtype]
    needed = count * dimension * wire.itemsize
    if len(data) != needed:
        several = f"{count} vectors of " if count != 1 else ""
        raise ValueError(f"{several}{dimension} {dtype} numbers need {needed} bytes, got {len(data)}")
    return np.frombuffer(data, dtype=wire).reshape(count, dimension)


def to_base64(vector: FloatVector, dtype: Dtype) -> str:
    """Encode a `[D]` vector as `encode_vector` does, then as base64."""
    return base64.b64encode(encode_vector(vector, dtype)).decode("ascii")


def from_base64(text: str, dtype: Dtype, dimension: int) -> FloatVector:
    """Decode base64 to a `[dimension]` vector of `dtype`.

    Raises:
        ValueError: Not base64, or not exactly `dimension` numbers.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("the vector is not valid base64") from error
    vector: FloatVector = decode_vectors(data, dtype, 1, dimension)[0]
    return vector


def result_sha(vector: FloatVector) -> str:
    """Hash the float16 bytes of a vector: a client that stores half precision can always check it; 64 hex digits."""
    return sha256_hex(encode_vector(vector, "float16"))
