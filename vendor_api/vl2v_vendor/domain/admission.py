"""Which items of an order are charged: those not paid yet, as far as both budgets reach."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.errors import BudgetExhausted
from vl2v_vendor.domain.ledger import NewItem


def unpaid_items(items: Iterable[NewItem], paid_keys: Collection[str]) -> tuple[NewItem, ...]:
    """The items that are still to be charged, each key once, in order."""
    unpaid: dict[str, NewItem] = {}
    for item in items:
        if item.item_key not in paid_keys:
            unpaid.setdefault(item.item_key, item)
    return tuple(unpaid.values())


def admit(wanted: tuple[NewItem, ...], budgets: Budgets, *, allow_partial: bool, any_paid: bool) -> tuple[NewItem, ...]:
    """The items that both budgets admit: all of them, or with `allow_partial` the longest prefix.

    With `allow_partial` and `any_paid` the prefix may be empty, since the answer still delivers what was paid before.

    Raises:
        BudgetExhausted: names the budget that holds less.
    """
    remaining_units = budgets.remaining_units
    total_units = 0
    for count, item in enumerate(wanted):
        total_units += item.units
        if total_units > remaining_units:
            if allow_partial and (count or any_paid):
                return wanted[:count]
            raise exhaustion(sum(item.units for item in wanted), budgets)
    return wanted


def exhaustion(wanted_units: int, budgets: Budgets) -> BudgetExhausted:
    """The refusal, which names the tighter budget."""
    name, budget = "account", budgets.account
    if budgets.key is not None and budgets.key.remaining_units < budget.remaining_units:
        name, budget = "key", budgets.key
    return BudgetExhausted(
        budget=name,
        limit_units=budget.limit_units,
        remaining_units=budget.remaining_units,
        wanted_units=wanted_units,
    )
