"""The audit surface: ledger entries, receipts, statements, summaries, public keys.

Units count queries: one image or one text is one unit. Money is `units * unit_price_micro`, in integer micro-units
of the currency. Times are integer microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import ChargedItem, LedgerEntry

_Hash = Field(pattern=r"^[0-9a-f]{64}$")
_Count = Field(ge=0, le=MAX_INTEGER)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Receipt(_Frozen):
    """A signed ledger entry: proof, offline, of what was bought, for how much, and at which place in the chain."""

    entry: LedgerEntry
    entry_hash: str = _Hash
    key_id: str
    signature: str = Field(description="Base64 Ed25519 over the receipt message of `entry_hash`.")


class StatementEntry(_Frozen):
    """One entry with its items in order."""

    entry: LedgerEntry
    entry_hash: str = _Hash
    items: list[ChargedItem]


class StatementHead(_Frozen):
    """The end of the chain when the statement was made."""

    v: Literal[1] = 1
    ledger_id: str
    account_id: str
    seq: int = Field(ge=0, le=MAX_INTEGER)
    entry_hash: str = _Hash
    used_units: int = _Count
    limit_units: int = _Count
    signed_at: int = _Count
    key_id: str


class SignedHead(_Frozen):
    """A statement head with its signature."""

    head: StatementHead
    signature: str


class Statement(_Frozen):
    """A page of the account's ledger, in `seq` order and gapless (see `chain.follows`).

    Ask after `next_after_seq` until it is null.
    """

    entries: list[StatementEntry]
    signed_head: SignedHead
    next_after_seq: int | None


class PublicKey(_Frozen):
    """A key that signs receipts and heads: the first vouches for itself, a later one is signed by its predecessor."""

    key_id: str
    public_key: str = Field(description="Base64 of the 32-byte Ed25519 public key.")
    created_at: int
    retired_at: int | None
    predecessor_id: str | None
    predecessor_signature: str | None


class PublicKeys(_Frozen):
    """All keys, oldest first."""

    ledger_id: str
    keys: list[PublicKey]


class Totals(_Frozen):
    """Units and money, refunds taken off."""

    units: int
    amount_micro: int


class Breakdown(Totals):
    """Totals of one group."""

    name: str


class Summary(_Frozen):
    """The account's bill at a glance, computed from the same rows as the statement."""

    ledger_id: str
    account_id: str
    api_key_id: str = Field(description="The public id of the key that asks.")
    currency: str
    limit_units: int
    used_units: int
    remaining_units: int
    total: Totals
    by_day: list[Breakdown]
    by_model: list[Breakdown]
    by_endpoint: list[Breakdown]
    by_key: list[Breakdown]
    head_seq: int
    head_hash: str


class RequestRecord(_Frozen):
    """One billed request: its receipt and items."""

    receipt: Receipt
    items: list[ChargedItem]
