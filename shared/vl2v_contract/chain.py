"""The ledger's entries and their hash chain: one chain per account, every entry names the hash of the one before.

Units count queries: one image or one text is one unit. Money is `units * unit_price_micro`, in integer micro-units of
the currency. Times are integer microseconds since the Unix epoch, UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vl2v_contract.identity import JSONValue, Modality, canonical_json, sha256_hex

EntryKind = Literal["charge", "topup", "refund", "restored"]

GENESIS_HASH = "0" * 64  # `prev_hash` of an account's first entry

RESTORE_MARGIN = 10_000
"""Numbers that a `restored` entry leaves unused after the last published one: more than a server signs within the
second by which its note of the published heads may lag."""


@dataclass(frozen=True, slots=True)
class ChargedItem:
    """One item of a charge: its key, the hash of the vector sold, and its units."""

    item_key: str
    result_sha: str
    units: int


def items_hash(items: Iterable[ChargedItem]) -> str:
    """Hash an entry's items, in order, to 64 hex digits."""
    rows: list[JSONValue] = [[item.item_key, item.result_sha, item.units] for item in items]
    return sha256_hex(b"vl2v-items-v1\n" + canonical_json(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """End of an account's chain, with the budget there; the next entry builds on it.

    Attributes:
        seq: Number of the last entry; 0 before the first.
        entry_hash: Hash of the last entry; `GENESIS_HASH` before the first.
        created_at: Time of the last entry.
    """

    ledger_id: str
    account_id: str
    currency: str
    seq: int
    entry_hash: str
    used_units: int
    limit_units: int
    created_at: int


@dataclass(frozen=True, slots=True)
class EntryOrigin:
    """Request, or administrator's act, that makes an entry.

    Attributes:
        now: Time of the database's clock; the entry's is later if that of the entry before it is.
        signing_key_id: Key that will sign the entry's receipt.
    """

    request_id: str
    now: int
    signing_key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeTerms:
    """What a charge is for: who bought, by which request path, what computed it, and at which price."""

    api_key_id: str
    endpoint: str
    modality: Modality
    model_id: str
    weights_sha: str
    precision: str
    preprocessing_id: str
    price_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row of the append-only ledger, exactly as it is hashed into the account's chain.

    A `charge` debits `units` from the budget; a `topup` raises the limit by `units`; a `refund` gives `units` of the
    entry `ref_seq` back. A `restored` entry follows the return to a backup: it says in `ref_seq` up to which number
    entries were signed and lost, and skips those numbers; it moves no units and no money. A field that a kind has no
    use for is null, or 0 where it counts.

    Attributes:
        seq: 1, 2, 3, ... within the account, without gaps except before a `restored` entry; see `follows`.
        request_id: The request, or the administrator's act, that made the entry.
        api_key_id: The public id of the API key that spent.
        used_units: Units used by the account after this entry.
        limit_units: The account's limit after this entry.
        created_at: Never less than the entry before it.
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

    @classmethod
    def charge(
        cls, end: ChainEnd, origin: EntryOrigin, terms: ChargeTerms, items: Sequence[ChargedItem], unit_price_micro: int
    ) -> "LedgerEntry":
        """Compose the entry that charges `items`, which are not empty."""
        units = sum(item.units for item in items)
        return cls._after(
            end,
            origin,
            kind="charge",
            **{name: getattr(terms, name) for name in ChargeTerms.__slots__},
            units=units,
            unit_price_micro=unit_price_micro,
            amount_micro=units * unit_price_micro,
            items_hash=items_hash(items),
            used_units=end.used_units + units,
        )

    @classmethod
    def top_up(cls, end: ChainEnd, origin: EntryOrigin, units: int, note: str | None) -> "LedgerEntry":
        """Compose the entry that raises the limit by `units`."""
        limit_units = end.limit_units + units
        return cls._after(end, origin, kind="topup", units=units, limit_units=limit_units, note=note)

    @classmethod
    def refund(cls, end: ChainEnd, origin: EntryOrigin, charge: "LedgerEntry", units: int, note: str) -> "LedgerEntry":
        """Compose the entry that gives `units` of a charge back.

        It repeats key, endpoint, model and price of the charge, so that totals by each subtract it.
        """
        return cls._after(
            end,
            origin,
            kind="refund",
            **{name: getattr(charge, name) for name in ChargeTerms.__slots__},
            units=units,
            unit_price_micro=charge.unit_price_micro,
            amount_micro=units * charge.unit_price_micro,
            used_units=end.used_units - units,
            ref_seq=charge.seq,
            note=note,
        )

    @classmethod
    def restored(cls, end: ChainEnd, origin: EntryOrigin, lost_seq: int, note: str) -> "LedgerEntry":
        """Compose the entry that says that entries up to `lost_seq` were signed and are lost."""
        last_given_seq = max(lost_seq, end.seq)
        seq = last_given_seq + 1 + RESTORE_MARGIN
        return cls._after(end, origin, kind="restored", seq=seq, ref_seq=last_given_seq, note=note)

    @classmethod
    def _after(cls, end: ChainEnd, origin: EntryOrigin, **fields: Any) -> "LedgerEntry":
        """Build the entry after `end`; a field that is not given is null, or 0, or as it was."""
        return cls(
            **{
                **_UNUSED,
                "ledger_id": end.ledger_id,
                "account_id": end.account_id,
                "seq": end.seq + 1,
                "request_id": origin.request_id,
                "currency": end.currency,
                "used_units": end.used_units,
                "limit_units": end.limit_units,
                "created_at": max(origin.now, end.created_at),
                "signing_key_id": origin.signing_key_id,
                "prev_hash": end.entry_hash,
                **fields,
            }
        )

    def end(self, entry_hash: str) -> ChainEnd:
        """Return the end of the chain once this entry is its last, under its hash."""
        kept = (name for name in ChainEnd.__slots__ if name != "entry_hash")
        return ChainEnd(entry_hash=entry_hash, **{name: getattr(self, name) for name in kept})

    def hash(self) -> str:
        """Return the entry's hash in the chain, 64 hex digits; it covers every field, `prev_hash` included."""
        return sha256_hex(b"vl2v-entry-v1\n" + canonical_json({name: getattr(self, name) for name in self.__slots__}))


_UNUSED: dict[str, Any] = dict.fromkeys(ChargeTerms.__slots__) | {
    "units": 0,
    "unit_price_micro": 0,
    "amount_micro": 0,
    "items_hash": None,
    "ref_seq": None,
    "note": None,
}
"""Fields as they are in an entry of a kind that has no use for them."""


def follows(previous_seq: int, entry: LedgerEntry) -> bool:
    """Return whether the entry's number is the one to come after `previous_seq` (0 before an account's first entry).

    That is the next number. Only a `restored` entry has another: it lies `RESTORE_MARGIN` beyond the numbers that were
    given out before a backup was restored, so that none is ever given out twice. Each such gap is an entry of its own,
    signed by the vendor, which says from where to where entries are missing.
    """
    if entry.kind != "restored":
        return entry.seq == previous_seq + 1
    return entry.ref_seq is not None and previous_seq <= entry.ref_seq == entry.seq - 1 - RESTORE_MARGIN
