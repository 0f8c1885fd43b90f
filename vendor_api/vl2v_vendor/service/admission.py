"""Whether a request may be worked on: the price it agreed to, and the budgets that must hold it."""

from __future__ import annotations

from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.admission import exhaustion
from vl2v_vendor.domain.errors import PriceChanged
from vl2v_vendor.domain.ledger import Price


def check_price(price: Price, units: int, *, price_id: int | None, max_charge_micro: int | None) -> None:
    """Hold the price in force against what the client pinned.

    Raises:
        PriceChanged: another price id is in force, or `units` would cost more than the client's maximum.
    """
    if price_id is not None and price_id != price.id:
        raise PriceChanged(f"price {price_id} is no longer in force; price {price.id} is. Read /v1/models and decide")
    charge_micro = units * price.unit_price_micro
    if max_charge_micro is not None and charge_micro > max_charge_micro:
        raise PriceChanged(
            f"{units} new items cost {charge_micro} micro-{price.currency}, more than `max_charge_micro` "
            f"{max_charge_micro}; raise it or send fewer items"
        )


def admit(wanted_units: int, budgets: Budgets, *, allow_partial: bool) -> int:
    """How many of the wanted units may be worked on: all, or with `allow_partial` what both budgets admit.

    A hint that refuses early; the charge's transaction decides.

    Raises:
        BudgetExhausted: not all fit, without `allow_partial`.
    """
    if wanted_units <= budgets.remaining_units:
        return wanted_units
    if allow_partial:
        return max(0, budgets.remaining_units)
    raise exhaustion(wanted_units, budgets)
