"""The same item in two requests at once: one pays, the other is served free, also by the last query of a budget."""

from __future__ import annotations

from sales_desk import RED, buy, keys, states
from serving_shop import Vendor, tell
from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.ledger import PaidItem


def test_a_duplicate_is_not_refused_for_the_budget_that_its_twin_has_just_spent() -> None:
    async def story(vendor: Vendor) -> None:
        ledger = vendor.ledger
        real_budgets, real_find_paid = ledger.budgets, ledger.find_paid
        waiting = ["between the first read and the second"]

        async def let_the_twin_buy() -> None:
            if waiting:
                waiting.clear()
                assert states(await buy(vendor, RED, item_keys=keys("a"))) == ["billed"]

        async def budgets(account_id: str, api_key_id: str) -> Budgets:
            found = await real_budgets(account_id, api_key_id)
            await let_the_twin_buy()
            return found

        async def find_paid(account_id: str, item_keys: list[str]) -> dict[str, PaidItem]:
            found = await real_find_paid(account_id, item_keys)
            await let_the_twin_buy()
            return found

        ledger.budgets, ledger.find_paid = budgets, find_paid  # type: ignore[method-assign, assignment]
        assert states(await buy(vendor, RED, item_keys=keys("a"))) == ["replayed"]
        assert ledger.used_units == 1

    tell(story, limit_units=1)
