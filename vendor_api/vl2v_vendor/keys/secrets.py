"""The vendor's secrets: the fingerprint pepper, which never rotates, and the signing keys, the current one last.

They live in one JSON file that only its owner can read, or the group of this process alone if it is mounted as a
secret. It lies beside the database and not in it, so that a copy of the database can neither sign nor recognise
content. Losing the file means losing both: back it up with the database.

A key that was replaced stays in the file for ever: every receipt is signed again, to the same bytes, by the key that
its entry names, whenever it is asked for.
"""

import base64
import fcntl
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import (
    PublicKey,
    SigningKey,
    act_message,
    head_message,
    receipt_message,
    recompute_message,
    successor_message,
)
from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.host import keep_owner, sync_folder

_PEPPER_BYTES = 32
_OWNER_ONLY = 0o600
_MOUNTED = 0o440
"""The mode of a secret that a container gets: nobody may write it, and the group is the process's."""


class SecretsError(VendorError):
    """The secrets file cannot be used."""


class SigningKeyMissing(LedgerUnavailable):
    """A replica signed with a key that this server's secrets file does not hold yet."""


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

    def signer(self) -> "SecretSigner":
        """Return a signer with every key, the last in use."""
        return SecretSigner(self.keys)

    @property
    def page_secret(self) -> bytes:
        """The secret of the web pages' sessions; whoever has it does not have the pepper."""
        return hmac.digest(self.pepper, b"vl2v-pages-v1", "sha256")

    def with_new_key(self, *, now: int) -> "VendorSecrets":
        """Add a new signing key, signed by the one that it replaces; made at `now`, or just after it."""
        successor, newest = SigningKey.generate(), self.keys[-1]
        signature = newest.key.sign(successor_message(successor.public_key))
        # Keys are published in the order of their times, which a clock that was put back must not disturb.
        created_at = max(now, newest.created_at + 1)
        return replace(self, keys=(*self.keys, StoredKey(successor, created_at, signature)))


class SecretSigner:
    """Signs what the vendor says, the same entry to the same bytes. Thread-safe.

    Attributes:
        on_signed: Function that is called with the account's id, the number and the hash of each entry that was signed
            by a receipt or as a statement head.
    """

    def __init__(self, keys: tuple[StoredKey, ...]) -> None:
        self.on_signed: Callable[[str, int, str], object] = lambda *_: None
        self._signed_seqs: dict[str, int] = {}
        self._lock = Lock()
        self._stored = keys
        self._by_id = {stored.key.key_id: stored.key for stored in keys}

    @property
    def key_id(self) -> str:
        """The key in use now."""
        return self._stored[-1].key.key_id

    @property
    def published_keys(self) -> tuple[PublicKey, ...]:
        """The public halves, oldest first."""
        keys = self._stored
        return tuple(
            PublicKey(
                key_id=stored.key.key_id,
                public_key=stored.key.public_key,
                created_at=stored.created_at,
                retired_at=keys[index + 1].created_at if index + 1 < len(keys) else None,
                predecessor_id=keys[index - 1].key.key_id if index else None,
                predecessor_signature=stored.predecessor_signature,
            )
            for index, stored in enumerate(keys)
        )

    def adopt(self, keys: tuple[StoredKey, ...]) -> None:
        """Use the last of these keys from now on; they must be published already.

        Raises:
            SecretsError: They do not continue the keys held now.
        """
        renewed = {stored.key.key_id: stored.key for stored in keys}
        if list(renewed)[: len(self._by_id)] != list(self._by_id):
            raise SecretsError("its signing keys do not continue those in use; restore the file that they are from")
        self._by_id = renewed  # first, since what `key_id` names must be there
        self._stored = keys

    def sign_entry(self, entry: LedgerEntry, entry_hash: str) -> str:
        """Sign an entry that is about to be committed, as its receipt will be; `on_signed` is not called.

        Raises:
            SigningKeyMissing: The entry names a key that these secrets do not hold.
        """
        key = self._by_id.get(entry.signing_key_id)
        if key is None:
            raise SigningKeyMissing(
                f"entry {entry.seq} of {entry.account_id} is signed with the key {entry.signing_key_id}, which is not "
                "in this server's secrets file yet; copy the file from where the key was rotated"
            )
        return key.sign(receipt_message(entry_hash))

    def sign_receipt(self, entry: LedgerEntry, entry_hash: str) -> str:
        """Sign a committed entry by the key that it names; returns the signature in base64, raises as `sign_entry`."""
        signature = self.sign_entry(entry, entry_hash)
        self._note(entry.account_id, entry.seq, entry_hash)
        return signature

    def has_signed(self, entry_hash: str, signature: str) -> bool:
        """Return whether a signature of an entry is by one of these keys, the newest tried first."""
        try:
            message = receipt_message(entry_hash)
        except ValueError:  # it is no hash
            return False
        return any(stored.key.sign(message) == signature for stored in reversed(self._stored))

    def sign_act(self, act_hash: str) -> str:
        """Sign an act of the staff by the key in use; returns the signature in base64."""
        return self._by_id[self.key_id].sign(act_message(act_hash))

    def sign_head(self, head: Mapping[str, int | str]) -> str:
        """Sign a canonical head by the key that it names as its `key_id`; returns the signature in base64."""
        signature = self._by_id[str(head["key_id"])].sign(head_message(head))
        self._note(str(head["account_id"]), int(head["seq"]), str(head["entry_hash"]))
        return signature

    def signed_seq(self, account_id: str) -> int:
        """Return the last number of an account that was signed here, by a receipt or a head; 0 if there is none."""
        return self._signed_seqs.get(account_id, 0)

    def sign_recompute(self, note: Mapping[str, int | str]) -> str:
        """Sign a canonical note by the key that it names as its `key_id`; returns the signature in base64."""
        return self._by_id[str(note["key_id"])].sign(recompute_message(note))

    def _note(self, account_id: str, seq: int, entry_hash: str) -> None:
        with self._lock:
            self._signed_seqs[account_id] = max(seq, self.signed_seq(account_id))
        self.on_signed(account_id, seq, entry_hash)


def load_or_create_secrets(path: Path) -> VendorSecrets:
    """Read the secrets file, or make it, whole or not at all, with a new pepper and a first signing key.

    Raises:
        SecretsError: Others may read the file, or it is not a secrets file.
    """
    if not path.exists():
        first = StoredKey(SigningKey.generate(), time.time_ns() // 1000, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _write_temporary(path, VendorSecrets(secrets.token_bytes(_PEPPER_BYTES), (first,)))
        try:
            with suppress(FileExistsError):  # another process was faster: its file stands
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return load_secrets(path)


def load_secrets(path: Path) -> VendorSecrets:
    """Read the secrets file.

    Raises:
        SecretsError: Others may read the file, or it is not a secrets file.
        OSError: There is no such file, or it cannot be read.
    """
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and (mode, status.st_gid) != (_MOUNTED, os.getegid()):
        raise SecretsError(f"{path} can be read by others (mode {mode:04o}); run `chmod 600 {path}`")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(
            StoredKey(
                SigningKey.from_seed(base64.b64decode(stored["seed"], validate=True)),
                int(stored["created_at"]),
                stored["predecessor_signature"],
            )
            for stored in document["signing_keys"]
        )
        if not keys:
            raise ValueError("no signing key")
        return VendorSecrets(base64.b64decode(document["pepper"], validate=True), keys)
    except (ValueError, KeyError, TypeError) as error:
        raise SecretsError(f"{path} is not a secrets file; restore it from a backup, do not delete it") from error


def rotate_signing_key(path: Path, *, not_before: int = 0) -> VendorSecrets:
    """Add a successor of the current signing key to the file, whole or not at all; nothing is published yet.

    It is made at `not_before` (microseconds) or later: this machine's clock may be behind what was signed.

    Raises:
        SecretsError: The file cannot be used, or is mounted read-only.
    """
    path = path.resolve()  # behind a link lies the file that is backed up
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # keeps other rotations out; the kernel frees a dead process's lock
        renewed = load_secrets(path).with_new_key(now=max(not_before, time.time_ns() // 1000))
        for left_behind in path.parent.glob(f".{path.name}.*"):  # by a process that was killed here
            left_behind.unlink(missing_ok=True)
        _replace(path, renewed)
    finally:
        os.close(descriptor)
    return renewed


def _replace(path: Path, content: VendorSecrets) -> None:
    try:
        temporary = _write_temporary(path, content)
        keep_owner(temporary, path)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        why = f"{path} cannot be replaced ({error.strerror})"
        raise SecretsError(f"{why}: rotate the key where the file is kept, and mount the new one here") from error


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
