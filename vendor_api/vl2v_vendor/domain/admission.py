"""Whether a request may be worked on and charged: its size, its price, and the budgets that must hold it."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.errors import BudgetExhausted, PriceChanged, TooManyItems
from vl2v_vendor.domain.ledger import Price


def admit(wanted_units: int, budgets: Budgets, *, allow_partial: bool, delivers_free: bool = False) -> int:
    """Return how many of the wanted units both budgets admit.

    Before the work this is a hint that refuses early; inside the charge's transaction it decides.

    Args:
        wanted_units: Units of the new items.
        budgets: Budgets of the account and the key.
        allow_partial: Admit the longest prefix that fits, instead of all or nothing.
        delivers_free: Whether the answer also delivers items that are already paid, so that the prefix may be empty.

    Raises:
        BudgetExhausted: The units do not fit; names the budget that holds less.
    """
    fitting = min(wanted_units, max(0, budgets.remaining_units))
    if fitting == wanted_units or (allow_partial and (fitting or delivers_free)):
        return fitting
    raise exhaustion(wanted_units, budgets)


def exhaustion(wanted_units: int, budgets: Budgets) -> BudgetExhausted:
    """Build the refusal that names the tighter budget."""
    name, budget = "account", budgets.account
    if budgets.key is not None and budgets.key.remaining_units < budget.remaining_units:
        name, budget = "key", budgets.key
    return BudgetExhausted(
        budget=name,
        limit_units=budget.limit_units,
        remaining_units=budget.remaining_units,
        wanted_units=wanted_units,
    )


def check_price(price: Price, units: int, *, price_id: int | None, max_charge_micro: int | None) -> None:
    """Compare the price in force with what the client pinned.

    Raises:
        PriceChanged: Another price id is in force, or `units` would cost more than the client's maximum.
    """
    if price_id is not None and price_id != price.id:
        raise PriceChanged(f"price {price_id} is no longer in force; price {price.id} is. Read /v1/models and decide")
    charge_micro = units * price.unit_price_micro
    if max_charge_micro is not None and charge_micro > max_charge_micro:
        raise PriceChanged(
            f"{units} new items cost {charge_micro} micro-{price.currency}, more than `max_charge_micro` "
            f"{max_charge_micro}; raise it or send fewer items"
        )


MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes that are checked before any work is done.

    Attributes:
        max_items: Number of items in one request.
        max_item_bytes: Size of one image file in bytes.
        max_request_bytes: Size of one request body in bytes.
        max_pixels: Pixels of one image, read from its header before it is decoded.
        max_text_bytes: Size of one text in UTF-8 bytes, before it is tokenized.
    """

    max_items: int = 256
    max_item_bytes: int = 20 * MEBIBYTE
    max_request_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_text_bytes: int = 4096

    def check_items(self, count: int) -> None:
        """Check how many items a request has.

        Raises:
            TooManyItems: It has more than `max_items`.
        """
        if count > self.max_items:
            raise TooManyItems(count, self.max_items)
