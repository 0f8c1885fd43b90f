"""The charge: what is billed, what is refused, and who pays when two want the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import text

from support.ledger.ledger_shop import Shop, item_key, new_item, vector_of
from vl2v_contract.chain import GENESIS_HASH, items_hash
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.domain.errors import BudgetExhausted, InvalidRequest, KeyRevoked, PriceChanged
from vl2v_vendor.domain.ledger import Charge

pytestmark = pytest.mark.anyio


async def test_a_charge_debits_appends_and_keeps_the_vectors(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order("cat", "dog"))
        assert charge.posted is not None
        entry = charge.posted.entry
        assert (entry.kind, entry.seq, entry.units, entry.amount_micro) == ("charge", 2, 2, 200)
        assert (entry.used_units, entry.limit_units) == (2, 10)
        assert entry.items_hash == items_hash(charge.posted.items)
        assert charge.posted.entry_hash == entry.hash()
        assert charge.budgets.tighter[1].remaining_units == 8

        paid = (await shop.offer(ledger, "cat", "never bought")).paid
        assert set(paid) == {item_key("cat")}
        cat = paid[item_key("cat")]
        assert cat.seq == 2
        assert cat.weights_sha == "a" * 64
        np.testing.assert_array_equal(cat.vector, vector_of("cat"))


async def test_entries_form_a_chain_that_ends_at_the_head(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        for name in ("a", "b", "c"):
            await ledger.charge(shop.order(name))
        posted = await ledger.entries(shop.account.id, after_seq=0, limit=100)
        assert [entry.entry.seq for entry in posted] == [1, 2, 3, 4]
        previous = [GENESIS_HASH, *(entry.entry_hash for entry in posted)]
        assert [entry.entry.prev_hash for entry in posted] == previous[:-1]
        assert all(entry.entry.hash() == entry.entry_hash for entry in posted)
        head = await ledger.head(shop.account.id)
        assert (head.seq, head.entry_hash, head.used_units, head.limit_units) == (4, previous[-1], 3, 10)


def test_all_or_nothing_refuses_the_whole_order(shop: Shop) -> None:
    names = [f"image {number}" for number in range(11)]
    with pytest.raises(BudgetExhausted) as refusal:
        shop.charge(shop.order(*names))
    assert (refusal.value.budget, refusal.value.remaining_units) == ("account", 10)
    assert shop.used_units() == 0


async def test_partial_bills_the_longest_prefix_then_nothing(shop: Shop) -> None:
    names = [f"image {number}" for number in range(12)]

    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order(*names, allow_partial=True))
        assert charge.posted is not None
        assert [item.item_key for item in charge.posted.items] == [item_key(name) for name in names[:10]]
        assert charge.refused == (item_key(names[10]), item_key(names[11]))
        with pytest.raises(BudgetExhausted):
            await ledger.charge(shop.order("one more", allow_partial=True))
        # What was paid before is still delivered beside what does not fit.
        charge = await ledger.charge(shop.order(names[0], "one more", allow_partial=True))
        assert charge.posted is None
        assert [item.item_key for item in charge.already_paid] == [item_key(names[0])]
        assert charge.refused == (item_key("one more"),)
    assert shop.used_units() == 10


async def test_an_exhausted_key_is_named_and_the_account_keeps_its_units(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(budget_units=10, key_units=3)

    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order("a", "b"))
        assert charge.budgets.key is not None
        assert charge.budgets.key.remaining_units == 1
        with pytest.raises(BudgetExhausted) as refusal:
            await ledger.charge(shop.order("c", "d"))
        assert (refusal.value.budget, refusal.value.limit_units, refusal.value.remaining_units) == ("key", 3, 1)
        budgets = (await shop.offer(ledger)).budgets
        assert budgets.key is not None
        assert (budgets.account.used_units, budgets.key.used_units) == (2, 2)


def test_one_key_twice_in_an_order_counts_once(shop: Shop) -> None:
    charge = shop.charge(shop.order("b", "a", "b"))
    assert isinstance(charge, Charge)
    assert charge.posted is not None
    assert [item.item_key for item in charge.posted.items] == [item_key("b"), item_key("a")]


def test_a_moved_price_bills_nothing(shop: Shop) -> None:
    order = shop.order("cat")
    shop.set_price(150)
    with pytest.raises(PriceChanged):
        shop.charge(order)
    assert shop.used_units() == 0


def test_an_account_in_another_currency_is_refused(shop: Shop) -> None:
    shop.price_id = shop.accounts.set_price("tiny / test", "image", 100, "USD").id
    with pytest.raises(InvalidRequest, match="USD"):
        shop.charge(shop.order("cat"))


def test_a_key_revoked_during_the_work_bills_nothing(shop: Shop) -> None:
    shop.accounts.revoke_key(shop.key.id)
    with pytest.raises(KeyRevoked):
        shop.charge(shop.order("cat"))
    assert shop.used_units() == 0


async def test_concurrent_buyers_of_one_item_pay_once(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        charges = await asyncio.gather(*(ledger.charge(shop.order("cat")) for _ in range(8)))
        payers = [charge for charge in charges if charge.posted]
        assert len(payers) == 1
        for charge in charges:
            if charge.posted is None:
                assert [item.item_key for item in charge.already_paid] == [item_key("cat")]
                np.testing.assert_array_equal(charge.already_paid[0].vector, vector_of("cat"))
    assert shop.used_units() == 1


async def test_an_item_paid_with_other_content_comes_back_with_the_first_fingerprint(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order_items(new_item("cat", fingerprint="1" * 64)))
        charge = await ledger.charge(shop.order_items(new_item("cat", fingerprint="2" * 64)))
        assert charge.posted is None
        assert charge.already_paid[0].fingerprint == "1" * 64
    assert shop.used_units() == 1


async def test_two_ledgers_race_and_exactly_the_budget_is_billed(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(budget_units=20)

    async with shop.open_ledger() as first, shop.open_ledger() as second:
        orders = [shop.order(f"image {number}") for number in range(40)]
        buyers = (ledger.charge(order) for ledger, order in zip([first, second] * 20, orders, strict=True))
        outcomes = await asyncio.gather(*buyers, return_exceptions=True)
    assert sum(isinstance(outcome, Charge) for outcome in outcomes) == 20
    assert sum(isinstance(outcome, BudgetExhausted) for outcome in outcomes) == 20
    assert shop.used_units() == 20


async def test_created_at_never_decreases(shop: Shop) -> None:
    """Both kinds of clock: SQLite asks the process, PostgreSQL the server; so the last time is set ahead by hand."""
    ahead = 4_000_000_000_000_000
    with shop.engine.begin() as connection:
        connection.execute(text("UPDATE budgets SET last_created_at = :ahead"), {"ahead": ahead})
    shop.clock.time -= 3_600_000_000

    async with shop.open_ledger() as ledger:
        charge = await ledger.charge(shop.order("cat"))
        assert charge.posted is not None
        assert charge.posted.entry.created_at == ahead


async def test_a_result_is_gone_after_its_retention_and_stays_paid(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("cat"))
        with shop.engine.begin() as connection:
            connection.execute(text("UPDATE results SET expires_at = 1"))
        paid = (await shop.offer(ledger, "cat")).paid
        assert paid[item_key("cat")].vector is None
        charge = await ledger.charge(shop.order("cat"))
        assert charge.posted is None
    assert shop.used_units() == 1


async def test_several_keys_share_the_account(shop: Shop) -> None:
    other, _ = shop.accounts.create_key(shop.account, scopes=DEFAULT_SCOPES, limit_units=1)

    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a"))
        await ledger.charge(shop.order("b", key=other))
        totals = await ledger.totals(shop.account.id)
        assert {(group.name, group.units) for group in totals.by_key} == {(shop.key.id, 1), (other.id, 1)}
        assert (totals.units, totals.amount_micro, totals.head.used_units) == (2, 200, 2)
