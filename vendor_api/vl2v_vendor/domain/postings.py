"""Deciding top-ups and refunds of one account while nobody else can write it: pure rules, no storage."""

from __future__ import annotations

from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import ChainEnd, EntryOrigin, LedgerEntry
from vl2v_vendor.domain.errors import InvalidRequest


def top_up(end: ChainEnd, origin: EntryOrigin, units: int, note: str | None) -> LedgerEntry:
    """Decide a top-up, which raises the account's limit by `units`.

    Raises:
        InvalidRequest: The number of units is not positive, or the limit would leave 53 bits.
    """
    if units <= 0 or end.limit_units + units > MAX_INTEGER:
        raise InvalidRequest(
            f"a top-up of {units} units is out of range; give a positive number, with a new limit below 2**53"
        )
    return LedgerEntry.top_up(end, origin, units, note)


def refund(
    end: ChainEnd, origin: EntryOrigin, charge: LedgerEntry, refunded_units: int, units: int, note: str
) -> LedgerEntry:
    """Decide a refund, which gives `units` of a charge back.

    Args:
        end: End of the account's chain.
        origin: Act that asks for the refund.
        charge: Charge that is refunded, in part or whole.
        refunded_units: Units of it that earlier refunds gave back.
        units: Units to give back now.
        note: Reason.

    Raises:
        InvalidRequest: The number of units is not positive, or more than the charge has left.
    """
    left_units = charge.units - refunded_units
    if not 0 < units <= left_units:
        raise InvalidRequest(
            f"{units} units cannot be refunded of entry {charge.seq}: {left_units} of its {charge.units} are left"
        )
    return LedgerEntry.refund(end, origin, charge, units, note)
