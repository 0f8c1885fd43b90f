"""The refusal names the budget that is exhausted."""

from __future__ import annotations

import pytest

from vl2v_vendor.domain.accounts import Budget, Budgets
from vl2v_vendor.domain.errors import (
    BudgetExhausted,
)
from vl2v_vendor.domain.ledger import admit


@pytest.mark.parametrize(
    ("account", "key", "wanted", "exhausted"),
    [
        ((10, 8), None, 3, "account"),
        ((10, 0), (5, 4), 3, "key"),
        ((10, 8), (5, 4), 3, "key"),
        ((10, 9), (5, 4), 3, "account"),
    ],
)
def test_the_refusal_names_the_exhausted_budget(
    account: tuple[int, int], key: tuple[int, int] | None, wanted: int, exhausted: str
) -> None:
    budgets = Budgets(Budget(*account), Budget(*key) if key else None)
    with pytest.raises(BudgetExhausted) as caught:
        admit(wanted, budgets, allow_partial=False)
    assert caught.value.budget == exhausted
    assert admit(wanted, budgets, allow_partial=True) == budgets.tighter[1].remaining_units
