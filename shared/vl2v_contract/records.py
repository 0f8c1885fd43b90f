"""Signed records of the audit surface: receipts, statements with their heads, public keys, summaries.

Both sides and the wire use these classes as they are. Units, money and times are those of `chain`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry
from vl2v_contract.identity import MAX_INTEGER

# What a reader of the wire's description sees; `__post_init__` holds records to it that were never on the wire.
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
    def from_json(cls, text: str) -> Receipt:
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

    def __post_init__(self) -> None:
        _Closed.__post_init__(self)
        for name in ("seq", "used_units", "limit_units", "signed_at"):
            if not 0 <= getattr(self, name) <= MAX_INTEGER:
                raise ValueError(f"`{name}` must be 0 or more and below 2**53")


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
