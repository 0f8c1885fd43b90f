"""The ledger's entries and their hash chain: one chain per account, every entry names the hash of the one before.

Units count queries: one image or one text is one unit. Money is `units * unit_price_micro`, in integer micro-units of
the currency. Times are integer microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vl2v_contract.canonical import JSONValue, canonical_json, sha256_hex
from vl2v_contract.identity import Modality

EntryKind = Literal["charge", "topup", "refund", "restored"]

GENESIS_HASH = "0" * 64
"""`prev_hash` of an account's first entry."""

RESTORE_MARGIN = 10_000
"""Numbers that a `restored` entry leaves unused after the last published one: more than a server signs within the
second by which its note of the published heads may lag."""

_ENTRY_TAG = b"vl2v-entry-v1\n"
_ITEMS_TAG = b"vl2v-items-v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row of the append-only ledger, exactly as it is hashed into the account's chain.

    A `charge` debits `units` from the budget; a `topup` raises the limit by `units`; a `refund` gives `units` of the
    entry `ref_seq` back. A `restored` entry follows the return to a backup: it says in `ref_seq` up to which number
    entries were signed and lost, and skips those numbers; it moves no units and no money. A field that a kind has no
    use for is null, or 0 where it counts.

    Attributes:
        seq: 1, 2, 3, ... within the account, without gaps except before a `restored` entry; see `follows`.
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
        return sha256_hex(_ENTRY_TAG + canonical_json({name: getattr(self, name) for name in self.__slots__}))


def follows(previous_seq: int, entry: LedgerEntry) -> bool:
    """Whether the entry's number is the one to come after `previous_seq` (0 before an account's first entry).

    That is the next number. Only a `restored` entry has another: it lies `RESTORE_MARGIN` beyond the numbers that were
    given out before a backup was restored, so that none is ever given out twice. Each such gap is an entry of its own,
    signed by the vendor, which says from where to where entries are missing.
    """
    if entry.kind != "restored":
        return entry.seq == previous_seq + 1
    return entry.ref_seq is not None and previous_seq <= entry.ref_seq == entry.seq - 1 - RESTORE_MARGIN


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
