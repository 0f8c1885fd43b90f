"""Accounts, keys, top-ups, refunds and prices, as the staff keep them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import select

from support.ledger.ledger_shop import MODEL, Shop, item_key
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, check_account_name, secret_sha256
from vl2v_vendor.domain.errors import BudgetExhausted, Forbidden, InvalidRequest, KeyExpired, KeyRevoked, NotFound
from vl2v_vendor.ledger_sql.tables import admin_log, api_keys
from vl2v_vendor.service.administration import KeyRequest, issue_key

pytestmark = pytest.mark.anyio


async def test_an_account_starts_with_its_budget_as_a_top_up(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        [first] = await ledger.entries(shop.account.id, after_seq=0, limit=10)
        assert (first.entry.kind, first.entry.units, first.entry.limit_units) == ("topup", 10, 10)
        assert (first.entry.amount_micro, first.items) == (0, ())


def test_a_name_is_taken_once_and_the_refusal_says_what_to_do(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match="accounts topup acme"):
        shop.accounts.create_account("acme", budget_units=5)


@pytest.mark.parametrize(
    ("name", "budget_units", "currency"),
    [
        ("", 1, "EUR"),
        (" acme", 1, "EUR"),
        ("a\nb", 1, "EUR"),
        ("a/b", 1, "EUR"),
        ("b", -1, "EUR"),
        ("b", 2**53, "EUR"),
        ("b", 1, "euro"),
    ],
)
def test_a_malformed_account_is_refused(shop: Shop, name: str, budget_units: int, currency: str) -> None:
    with pytest.raises(InvalidRequest):
        shop.accounts.create_account(name, budget_units=budget_units, currency=currency)
    assert [account.name for account in shop.accounts.accounts()] == ["acme"]


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@a", "a/b", "a\\b", "..", "a%2fb", "a?b", "a#b", "e\u0301", "e\u0301a"]
)
def test_a_name_that_a_url_or_a_spreadsheet_reads_in_another_way_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"the first is a letter or a digit, and none is # % / \? \\"):
        check_account_name(name)


@pytest.mark.parametrize("name", ["é", "Łódź & co. (north), 2", "7 hills", "株式会社", "a=b", "acme@example.org"])
def test_a_name_may_be_of_any_language(name: str) -> None:
    check_account_name(name)


def test_an_unknown_account_is_answered_with_the_remedy(shop: Shop) -> None:
    with pytest.raises(NotFound, match="accounts create nobody"):
        shop.accounts.find_account("nobody")


async def test_a_secret_is_stored_as_a_hash_only(shop: Shop) -> None:
    assert shop.secret.startswith("vl2v_")
    assert len(shop.secret) == 5 + 43
    with shop.engine.connect() as connection:
        stored = connection.execute(select(api_keys)).one()
    assert stored.secret_sha256 == secret_sha256(shop.secret)
    assert shop.secret not in str(stored)

    async with shop.open_ledger() as ledger:
        assert await ledger.find_key(secret_sha256(shop.secret)) == shop.key
        assert await ledger.find_key(secret_sha256("vl2v_guess")) is None


async def test_a_key_is_revoked_at_once_beside_a_running_ledger(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        shop.clock.time += 1
        shop.accounts.revoke_key(shop.key.prefix)
        key = await ledger.find_key(secret_sha256(shop.secret))
        assert key is not None
        with pytest.raises(KeyRevoked):
            key.require("embed", now=shop.clock.now())
    first = shop.accounts.revoke_key(shop.key.id).revoked_at
    shop.clock.time += 1
    assert shop.accounts.revoke_key(shop.key.id).revoked_at == first


def test_a_key_expires_and_has_its_scopes_only(shop: Shop) -> None:
    key, _ = shop.accounts.create_key(shop.account, scopes=frozenset({"embed"}), expires_at=100)
    key.require("embed", now=99)
    with pytest.raises(Forbidden):
        key.require("billing", now=99)
    with pytest.raises(KeyExpired):
        key.require("embed", now=100)
    with pytest.raises(InvalidRequest, match="bake"):
        shop.accounts.create_key(shop.account, scopes=frozenset({"bake"}))  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="keys list"):
        shop.accounts.revoke_key("key_unknown")


async def test_a_top_up_beside_a_running_ledger_is_seen(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(budget_units=1)

    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a"))
        with pytest.raises(BudgetExhausted):
            await ledger.charge(shop.order("b"))
        shop.accounts.top_up(shop.account, 1)
        charge = await ledger.charge(shop.order("b"))
        assert charge.posted is not None
        assert (charge.posted.entry.seq, charge.posted.entry.limit_units) == (4, 2)


@pytest.mark.parametrize("units", [0, -1, 2**53])
def test_a_top_up_out_of_range_is_refused(shop: Shop, units: int) -> None:
    with pytest.raises(InvalidRequest):
        shop.accounts.top_up(shop.account, units)
    assert shop.accounts.find_account("acme").budget.limit_units == 10


def test_an_act_under_one_request_id_is_done_once(shop: Shop) -> None:
    for _ in range(2):
        account = shop.accounts.top_up(shop.account, 5, note="invoice 7", request_id="invoice-7")
        assert account.budget.limit_units == 15
    with pytest.raises(InvalidRequest, match="another act"):
        shop.accounts.top_up(shop.account, 6, note="invoice 7", request_id="invoice-7")
    first = shop.accounts.create_account("other", budget_units=1, request_id="open-other")
    assert shop.accounts.create_account("other", budget_units=1, request_id="open-other") == first


def test_every_act_is_logged_without_secrets(shop: Shop) -> None:
    shop.accounts.top_up(shop.account, 5, request_id="invoice-7")
    shop.accounts.revoke_key(shop.key.id)
    with shop.engine.connect() as connection:
        rows = connection.execute(select(admin_log).order_by(admin_log.c.id)).all()
    assert [row.act for row in rows] == ["create_account", "create_key", "set_price", "top_up", "revoke_key"]
    assert [row.account_id for row in rows] == [
        shop.account.id,
        shop.account.id,
        None,
        shop.account.id,
        shop.account.id,
    ]
    assert json.loads(rows[3].outcome) == {"seq": 2}
    assert shop.secret not in str(rows)


async def test_a_refund_gives_units_back_to_account_and_key(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(budget_units=10, key_units=3)

    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a", "b", "c"))
        shop.accounts.refund(shop.account, 2, 2, "two were blurred")
        budgets = (await shop.offer(ledger)).budgets
        assert budgets.key is not None
        assert (budgets.account.used_units, budgets.key.used_units) == (1, 1)
        totals = await ledger.totals(shop.account.id)
        assert (totals.units, totals.amount_micro, totals.head.used_units) == (1, 100, 1)
        assert [(group.name, group.units) for group in totals.by_model] == [(MODEL, 1)]
        [refund] = await ledger.entries(shop.account.id, after_seq=2, limit=10)
        assert (refund.entry.kind, refund.entry.ref_seq, refund.entry.amount_micro) == ("refund", 2, 200)
        # Refunded items stay paid: they are never charged again.
        assert item_key("a") in (await shop.offer(ledger, "a")).paid


def test_no_more_is_refunded_than_was_charged(shop: Shop) -> None:
    shop.charge(shop.order("a", "b"))
    shop.accounts.refund(shop.account, 2, 1, "first")
    for units in (2, 0, -1):
        with pytest.raises(InvalidRequest, match="1 of its 2"):
            shop.accounts.refund(shop.account, 2, units, "again")
    for seq in (1, 3, 99):
        with pytest.raises(NotFound):
            shop.accounts.refund(shop.account, seq, 1, "no charge")
    assert shop.used_units() == 1


async def test_prices_are_versions(shop: Shop) -> None:
    shop.accounts.ensure_prices(MODEL, {"image": 100, "text": 10}, "EUR")
    assert len(shop.accounts.prices(MODEL)) == 2
    shop.accounts.ensure_prices(MODEL, {"image": 100, "text": 12}, "EUR")
    assert [(price.modality, price.unit_price_micro) for price in shop.accounts.prices()] == [
        ("image", 100),
        ("text", 10),
        ("text", 12),
    ]

    async with shop.open_ledger() as ledger:
        assert (await ledger.price(MODEL, "text")).unit_price_micro == 12
    with pytest.raises(InvalidRequest):
        shop.set_price(-1)


def test_a_key_request_makes_the_account_once(shop: Shop) -> None:
    issued = issue_key(shop.accounts, KeyRequest(account_name="new", budget_units=7, expires_days=1))
    assert issued.account_is_new
    assert issued.account.budget.limit_units == 7
    assert issued.key.expires_at == issued.key.created_at + 86_400_000_000
    again = issue_key(shop.accounts, KeyRequest(account_name="new"))
    assert (again.account.id, again.account_is_new) == (issued.account.id, False)
    with pytest.raises(InvalidRequest, match="accounts topup new"):
        issue_key(shop.accounts, KeyRequest(account_name="new", budget_units=7))
    with pytest.raises(InvalidRequest, match="--budget"):
        issue_key(shop.accounts, KeyRequest(account_name="newer"))
    assert len(shop.accounts.keys(issued.account.id)) == 2


def test_a_refused_key_leaves_no_account_behind(shop: Shop) -> None:
    request = KeyRequest(account_name="new", budget_units=7, scopes=frozenset())
    with pytest.raises(InvalidRequest):
        issue_key(shop.accounts, request)
    assert [account.name for account in shop.accounts.accounts()] == ["acme"]
    assert shop.key.scopes == DEFAULT_SCOPES
