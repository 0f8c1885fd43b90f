"""The ledger's entries and their hash chain: one chain per account, every entry names the hash of the one before.

Units count queries: one image or one text is one unit. Money is `units * unit_price_micro`, in integer micro-units of
the currency. Times are integer microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from vl2v_contract.canonical import JSONValue, canonical_json, sha256_hex
from vl2v_contract.identity import Modality

EntryKind = Literal["charge", "topup", "refund"]

GENESIS_HASH = "0" * 64
"""`prev_hash` of an account's first entry."""

_ENTRY_TAG = b"vl2v-entry-v1\n"
_ITEMS_TAG = b"vl2v-items-v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row of the append-only ledger, exactly as it is hashed into the account's chain.

    A `charge` debits `units` from the budget; a `topup` raises the limit by `units`; a `refund` gives `units` of the
    entry `ref_seq` back. A field that a kind has no use for is null, or 0 where it counts.

    Attributes:
        seq: 1, 2, 3, ... without gaps within the account.
        request_id: the request, or the administrator's act, that made the entry.
        api_key_id: the public id of the API key that spent.
        used_units: used by the account after this entry.
        limit_units: the account's limit after this entry.
        created_at: never less than the entry before it.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    v: Literal[1] = 1
    ledger_id: str
    account_id: str
    seq: int
    kind: EntryKind
    request_id: str
    api_key_id: str | None
    endpoint: str | None
    modality: Modality | None
    model_id: str | None
    weights_sha: str | None
    precision: str | None
    preprocessing_id: str | None
    units: int
    price_id: int | None
    unit_price_micro: int
    amount_micro: int
    currency: str
    items_hash: str | None
    ref_seq: int | None
    note: str | None
    used_units: int
    limit_units: int
    created_at: int
    signing_key_id: str
    prev_hash: str

    def hash(self) -> str:
        """The entry's hash in the chain, 64 hex digits; it covers every field, `prev_hash` included."""
        return sha256_hex(_ENTRY_TAG + canonical_json(asdict(self)))


@dataclass(frozen=True, slots=True)
class ChargedItem:
    """One item of a charge: its key, the hash of the vector sold, and its units."""

    item_key: str
    result_sha: str
    units: int


def items_hash(items: Iterable[ChargedItem]) -> str:
    """Hash of an entry's items, in order; 64 hex digits."""
    rows: list[JSONValue] = [[item.item_key, item.result_sha, item.units] for item in items]
    return sha256_hex(_ITEMS_TAG + canonical_json(rows))
