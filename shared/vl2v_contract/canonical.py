"""Canonical JSON (RFC 8785) for everything that is hashed, keyed or signed.

Only objects, arrays, strings, booleans, null and integers below 2**53 are allowed. A float has no place in
money or identity, and leaving floats out makes Python's own serialiser agree with RFC 8785 byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSONValue: TypeAlias = "bool | int | str | Sequence[JSONValue] | Mapping[str, JSONValue] | None"

MAX_INTEGER = 2**53 - 1

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def canonical_json(value: JSONValue) -> bytes:
    """Serialise `value` to the one UTF-8 byte string that stands for it.

    Raises:
        ValueError: A float, an integer outside +-(2**53 - 1), a key that is not ASCII text, or a lone surrogate.
    """
    _check(value)
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("canonical JSON cannot hold a lone surrogate") from error


def sha256_hex(data: bytes | memoryview) -> str:
    """SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _check(value: object) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"canonical JSON holds integers below 2**53, not {value}")
        return
    if isinstance(value, dict):
        for key, member in value.items():
            # ASCII keys sort alike by code point (Python) and by UTF-16 unit (RFC 8785).
            if not (isinstance(key, str) and key.isascii()):
                raise ValueError(f"canonical JSON keys are ASCII strings, not {key!r}")
            _check(member)
        return
    if isinstance(value, list | tuple):
        for member in value:
            _check(member)
        return
    raise ValueError(f"canonical JSON cannot hold a {type(value).__name__}")
