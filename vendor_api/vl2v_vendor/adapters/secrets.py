"""The vendor's secrets: the fingerprint pepper, which never rotates, and the signing keys, the current one last.

They live in one JSON file that only its owner can read, beside the database and not in it, so that a copy of the
database can neither sign nor recognise content. Losing the file means losing both: back it up with the database.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.signatures import SigningKey, head_message, receipt_message, recompute_message, successor_message
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.domain.ports import PublishedKey

_PEPPER_BYTES = 32
_OWNER_ONLY = 0o600


class SecretsError(VendorError):
    """The secrets file cannot be used."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key, when it was made, and, but for the first, its predecessor's signature."""

    key: SigningKey
    created_at: int
    predecessor_signature: str | None


@dataclass(frozen=True, slots=True)
class VendorSecrets:
    """What the secrets file holds. Its `repr` shows no secret."""

    pepper: bytes = field(repr=False)
    keys: tuple[StoredKey, ...]

    def signer(self) -> SecretSigner:
        """A signer with every key, the last in use."""
        return SecretSigner(self.keys)

    def with_new_key(self, *, now: int) -> VendorSecrets:
        """These secrets with a new signing key, signed by the one that it replaces."""
        successor = SigningKey.generate()
        signature = self.keys[-1].key.sign(successor_message(successor.public_key))
        return replace(self, keys=(*self.keys, StoredKey(successor, now, signature)))


class SecretSigner:
    """`domain.ports.Signer` over keys held in memory."""

    def __init__(self, keys: tuple[StoredKey, ...]) -> None:
        self._keys = {stored.key.key_id: stored.key for stored in keys}
        self._current = keys[-1].key
        self._published = _publish(keys)

    @property
    def key_id(self) -> str:
        """The key in use now."""
        return self._current.key_id

    @property
    def published_keys(self) -> tuple[PublishedKey, ...]:
        """The public halves, oldest first."""
        return self._published

    def sign_receipt(self, entry: LedgerEntry, entry_hash: str) -> str:
        """Base64 signature by the key that the entry names.

        Raises:
            SecretsError: the entry names a key that these secrets do not hold.
        """
        key = self._keys.get(entry.signing_key_id)
        if key is None:
            raise SecretsError(
                f"entry {entry.seq} of {entry.account_id} names the signing key {entry.signing_key_id}, which is not "
                "in the secrets file as it was when the server started; restart the server after a key rotation"
            )
        return key.sign(receipt_message(entry_hash))

    def sign_head(self, head: Mapping[str, int | str]) -> str:
        """Base64 signature over the canonical head by the key in use."""
        return self._current.sign(head_message(head))

    def sign_recompute(self, note: Mapping[str, int | str]) -> str:
        """Base64 signature over the canonical note by the key in use."""
        return self._current.sign(recompute_message(note))


def load_or_create_secrets(path: Path) -> VendorSecrets:
    """Read the secrets file, or make it with a new pepper and a first signing key.

    Raises:
        SecretsError: others may read the file, or it is not a secrets file.
    """
    if not path.exists():
        first = StoredKey(SigningKey.generate(), time.time_ns() // 1000, None)
        _create(path, VendorSecrets(secrets.token_bytes(_PEPPER_BYTES), (first,)))
    return _load(path)


def rotate_signing_key(path: Path) -> VendorSecrets:
    """Add a successor of the current signing key to the file; servers sign with it once they are restarted."""
    renewed = _load(path).with_new_key(now=time.time_ns() // 1000)
    temporary = _write_temporary(path, renewed)
    os.replace(temporary, path)
    _sync_folder(path.parent)
    return renewed


def _publish(keys: tuple[StoredKey, ...]) -> tuple[PublishedKey, ...]:
    return tuple(
        PublishedKey(
            key_id=stored.key.key_id,
            public_key=stored.key.public_key,
            created_at=stored.created_at,
            retired_at=keys[index + 1].created_at if index + 1 < len(keys) else None,
            predecessor_id=keys[index - 1].key.key_id if index else None,
            predecessor_signature=stored.predecessor_signature,
        )
        for index, stored in enumerate(keys)
    )


def _load(path: Path) -> VendorSecrets:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SecretsError(f"{path} can be read by others (mode {mode:04o}); run `chmod 600 {path}`")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return VendorSecrets(
            pepper=base64.b64decode(document["pepper"], validate=True),
            keys=tuple(_read_key(stored) for stored in document["signing_keys"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SecretsError(f"{path} is not a secrets file; restore it from a backup, do not delete it") from error


def _read_key(stored: dict[str, Any]) -> StoredKey:
    seed = base64.b64decode(stored["seed"], validate=True)
    return StoredKey(SigningKey.from_seed(seed), int(stored["created_at"]), stored["predecessor_signature"])


def _create(path: Path, content: VendorSecrets) -> None:
    """Write the file whole or not at all; if another process was faster, its file stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def _write_temporary(path: Path, content: VendorSecrets) -> Path:
    document = {
        "version": 1,
        "pepper": base64.b64encode(content.pepper).decode("ascii"),
        "signing_keys": [
            {
                "seed": base64.b64encode(stored.key.seed()).decode("ascii"),
                "created_at": stored.created_at,
                "predecessor_signature": stored.predecessor_signature,
            }
            for stored in content.keys
        ],
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
