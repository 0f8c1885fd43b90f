"""The same item in two requests at once: one pays, the other is served free, also by the last query of a budget."""

from __future__ import annotations

import pytest

from support.vendor.sales_desk import RED, buy, keys, states
from support.vendor.serving_shop import running_vendor
from vl2v_contract.identity import Modality
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.ledger import Offer

pytestmark = pytest.mark.anyio


async def test_a_duplicate_is_not_refused_for_the_budget_that_its_twin_has_just_spent() -> None:
    async with running_vendor(limit_units=1) as vendor:
        ledger = vendor.ledger
        real_offer = ledger.offer
        waiting = ["between the offer and the charge"]

        async def offer(caller: ApiKey, model_id: str, modality: Modality, item_keys: list[str]) -> Offer:
            found = await real_offer(caller, model_id, modality, item_keys)
            if waiting:
                waiting.clear()
                assert states(await buy(vendor, RED, item_keys=keys("a"))) == ["billed"]
            return found

        ledger.offer = offer  # type: ignore[method-assign, assignment]
        assert states(await buy(vendor, RED, item_keys=keys("a"))) == ["replayed"]
        assert ledger.used_units == 1
