"""Signed records of the audit surface: receipts, statements, public keys, summaries; and Ed25519 signatures over them.

Both sides and the wire use these classes as they are. Units, money and times are those of `chain`. Each kind of message
is signed under a tag of its own, so that a signature made for one can never pass for another.
"""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import Field

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry
from vl2v_contract.identity import MAX_INTEGER, JSONValue, canonical_json, sha256_hex

# What a reader of the wire's description sees; `__post_init__` holds hashes to it that were never on the wire.
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class _Closed:
    """A record that is refused if it holds a field that is not its own."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", getattr(self, "entry_hash", GENESIS_HASH)):
            raise ValueError("`entry_hash` must be 64 lower-case hexadecimal digits")


@dataclass(frozen=True, slots=True)
class Receipt(_Closed):
    """A signed ledger entry: proof, offline, of what was bought, for how much, and at which place in the chain.

    Attributes:
        key_id: Key that signed; the one that the entry names.
        signature: Base64 Ed25519 over the receipt message of `entry_hash`.
    """

    entry: LedgerEntry
    entry_hash: Hash
    key_id: str
    signature: str

    def to_json(self) -> str:
        """Write the whole receipt; `from_json` reads it back."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is not a receipt.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            return cls(LedgerEntry(**body["entry"]), body["entry_hash"], body["key_id"], body["signature"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a receipt: {error}") from error


@dataclass(frozen=True, slots=True)
class StatementEntry(_Closed):
    """One entry with its hash and its items in order."""

    entry: LedgerEntry
    entry_hash: Hash
    items: tuple[ChargedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementHead(_Closed):
    """The end of the chain when the statement was made."""

    v: Literal[1] = 1
    ledger_id: str
    account_id: str
    seq: Count
    entry_hash: Hash
    used_units: Count
    limit_units: Count
    signed_at: Count
    key_id: str


@dataclass(frozen=True, slots=True)
class SignedHead(_Closed):
    """A statement head with its signature."""

    head: StatementHead
    signature: str


@dataclass(frozen=True, slots=True)
class Statement(_Closed):
    """A page of the account's ledger, in `seq` order and gapless (see `chain.follows`).

    Ask after `next_after_seq` until it is null.
    """

    entries: tuple[StatementEntry, ...]
    signed_head: SignedHead
    next_after_seq: int | None


@dataclass(frozen=True, slots=True)
class SignedStatement(Statement):
    """A page with the signatures that the entries were committed with; behind the head, those that have none follow.

    Attributes:
        signatures: Of each entry, as in its receipt, or null; null in all from vendors that do not show them.
    """

    signatures: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class PublicKey(_Closed):
    """A key that signs receipts and heads: the first vouches for itself, a later one is signed by its predecessor.

    Attributes:
        public_key: Base64 of the 32-byte Ed25519 public key.
    """

    key_id: str
    public_key: str
    created_at: int
    retired_at: int | None
    predecessor_id: str | None
    predecessor_signature: str | None


@dataclass(frozen=True, slots=True)
class PublicKeys(_Closed):
    """All keys, oldest first."""

    ledger_id: str
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class Totals(_Closed):
    """Units and money, refunds taken off."""

    units: int
    amount_micro: int


@dataclass(frozen=True, slots=True)
class Breakdown(Totals):
    """Totals of one group."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(_Closed):
    """The account's bill at a glance, computed from the same rows as the statement.

    Attributes:
        api_key_id: The public id of the key that asks.
    """

    ledger_id: str
    account_id: str
    api_key_id: str
    currency: str
    limit_units: int
    used_units: int
    remaining_units: int
    total: Totals
    by_day: tuple[Breakdown, ...]
    by_model: tuple[Breakdown, ...]
    by_endpoint: tuple[Breakdown, ...]
    by_key: tuple[Breakdown, ...]
    head_seq: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class RequestRecord(_Closed):
    """One billed request: its receipt and items."""

    receipt: Receipt
    items: tuple[ChargedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputeNote:
    """A note that a paid vector was past its retention and was computed again, free.

    Attributes:
        seq: Ledger entry that paid for the item.
        recompute_of: `result_sha` of the vector that was paid.
        result_sha: `result_sha` of the vector in this answer.
    """

    v: Literal[1] = 1
    ledger_id: str
    account_id: str
    item_key: str
    seq: int
    recompute_of: str
    result_sha: str
    key_id: str


@dataclass(frozen=True, slots=True)
class SignedRecompute:
    """A recompute note with its signature."""

    note: RecomputeNote
    signature: str

    def to_json(self) -> str:
        """Write note and signature."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)


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


def act_message(act_hash: str) -> bytes:
    """Return what the vendor signs of an act of its staff: the hash of its row, which covers the acts before it."""
    return b"vl2v-act-v1\n" + bytes.fromhex(act_hash)


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
    def generate(cls) -> "SigningKey":
        """Make a new random key."""
        return cls.from_seed(secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
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
