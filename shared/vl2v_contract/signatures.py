"""Ed25519 signatures over receipts, statement heads, recomputed results and successor keys.

Each kind of message is signed under a tag of its own, so that a signature made for one can never pass for another.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vl2v_contract.identity import JSONValue, canonical_json, sha256_hex


def receipt_message(entry_hash: str) -> bytes:
    """Return what a receipt signs: the hash of the entry, which covers all its fields and its place in the chain."""
    return b"vl2v-receipt-v1\n" + bytes.fromhex(entry_hash)


def head_message(head: Mapping[str, JSONValue]) -> bytes:
    """Return what a statement head signs: its canonical body, the signature left out."""
    return b"vl2v-head-v1\n" + canonical_json(dict(head))


def recompute_message(note: Mapping[str, JSONValue]) -> bytes:
    """Return what a recomputed result signs: the canonical note that names the paid and the new `result_sha`."""
    return b"vl2v-recompute-v1\n" + canonical_json(dict(note))


def successor_message(public_key: str) -> bytes:
    """Return what the old key signs when a new key takes over."""
    return b"vl2v-successor-v1\n" + base64.b64decode(public_key)


def key_id_of(public_key: bytes) -> str:
    """Return the short name of a public key: the first 16 hex digits of its SHA-256."""
    return sha256_hex(public_key)[:16]


def verify(public_key: str, message: bytes, signature: str) -> bool:
    """Return whether base64 `signature` over `message` was made by base64 `public_key`; never raises."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key with its public half and short name. Its `repr` shows no secret."""

    private_key: Ed25519PrivateKey = field(repr=False)
    public_key: str
    key_id: str

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new random key."""
        return cls.from_seed(secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Return the key of a 32-byte seed.

        Raises:
            ValueError: The seed is not 32 bytes.
        """
        private_key = Ed25519PrivateKey.from_private_bytes(seed)
        public = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(private_key, base64.b64encode(public).decode("ascii"), key_id_of(public))

    def seed(self) -> bytes:
        """Return the 32 secret bytes that `from_seed` takes."""
        return self.private_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, message: bytes) -> str:
        """Sign `message`; returns base64. Ed25519 is deterministic, so a replay signs to the same bytes."""
        return base64.b64encode(self.private_key.sign(message)).decode("ascii")
