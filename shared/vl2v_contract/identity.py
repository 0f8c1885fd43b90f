"""Canonical JSON (RFC 8785) for everything that is hashed, keyed or signed; content hashes, item keys, cache keys.

An *item* is one image or one text. Its `content_sha` names the content, its cache key names the vector that one
vendor's model makes of it, and its item key, a keyed hash of the same fields, names the purchase: one key is
charged once, for ever.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

JSONValue: TypeAlias = "bool | int | str | Sequence[JSONValue] | Mapping[str, JSONValue] | None"

MAX_INTEGER = 2**53 - 1

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def canonical_json(value: JSONValue) -> bytes:
    """Serialise `value` to the one UTF-8 byte string that stands for it.

    Only objects, arrays, strings, booleans, null and integers below 2**53 are allowed. A float has no place in money or
    identity, and leaving floats out makes Python's own serialiser agree with RFC 8785 byte for byte.

    Raises:
        ValueError: A float, an integer outside +-(2**53 - 1), a key that is not ASCII text, or a lone surrogate.
    """
    _check(value)
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("canonical JSON cannot hold a lone surrogate") from error


def sha256_hex(data: bytes | memoryview) -> str:
    """Hash `data` to the 64 lower-case hexadecimal digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _check(value: object) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"canonical JSON holds integers below 2**53, not {value}")
    elif isinstance(value, dict):
        for key, member in value.items():
            # ASCII keys sort alike by code point (Python) and by UTF-16 unit (RFC 8785).
            if not (isinstance(key, str) and key.isascii()):
                raise ValueError(f"canonical JSON keys are ASCII strings, not {key!r}")
            _check(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _check(member)
    else:
        raise ValueError(f"canonical JSON cannot hold a {type(value).__name__}")


Modality = Literal["image", "text"]

ITEM_KEY_HEX_LENGTH = 64


def rgb8_sha(pixels: bytes | memoryview, *, width: int, height: int) -> str:
    """Hash the content of an RGB8 image exactly at the model's input size.

    Hashing pixels, not the file, makes the hash the same for a PNG of any compression level and for a raw tensor. They
    are `height * width * 3` bytes, rows from the top, RGB interleaved. Any other image is hashed as it is sent.

    Raises:
        ValueError: The number of bytes does not fit the size.
    """
    if len(pixels) != width * height * 3:
        raise ValueError(f"{width}x{height} RGB8 needs {width * height * 3} bytes, got {len(pixels)}")
    digest = hashlib.sha256(b"vl2v-rgb8-v1\0" + struct.pack(">II", width, height))
    digest.update(pixels)
    return digest.hexdigest()


def text_sha(text: str) -> str:
    """Hash a text: its UTF-8 bytes, nothing normalised."""
    return sha256_hex(text.encode("utf-8"))


@dataclass(frozen=True, slots=True)
class EmbeddingIdentity:
    """Everything that decides which vector an item becomes, and who sold it."""

    ledger_id: str
    modality: Modality
    model_id: str
    weights_sha: str
    precision: str
    preprocessing_id: str
    truncate: bool
    content_sha: str

    def item_key(self, item_secret: bytes) -> str:
        """Return the purchase's name: HMAC-SHA256 under the cache's own secret, 64 hex digits.

        The secret keeps the vendor's ledger from telling whether two accounts bought the same image.
        """
        return hmac.new(item_secret, self._canonical(), hashlib.sha256).hexdigest()

    def cache_key(self) -> str:
        """Return the vector's name in the local cache: the same fields without the secret, 64 hex digits."""
        return sha256_hex(self._canonical())

    def _canonical(self) -> bytes:
        return canonical_json({"v": 1, **{name: getattr(self, name) for name in self.__slots__}})


def fingerprint(pepper: bytes, *, modality: Modality, model_id: str, truncate: bool, content_sha: str) -> str:
    """Return what the vendor keeps of a paid item to recognise the same content: keyed, so no input hash is stored.

    Weights, precision and preprocessing are left out: the ledger entry names them, and an item whose model has
    moved on must still be recognised as the same item.
    """
    fields = {"v": 1, "modality": modality, "model_id": model_id, "truncate": truncate, "content_sha": content_sha}
    return hmac.new(pepper, canonical_json(fields), hashlib.sha256).hexdigest()
