"""`ledger verify`: clean books are clean, and each kind of tampering is named."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from support.ledger.ledger_shop import Shop, fixed_signer, item_key, rotated_signer
from support.ledger.tampered_books import found, verified
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.ledger_sql.database import is_postgresql, writing
from vl2v_vendor.ledger_sql.key_publication import WrongSecrets, publish_keys
from vl2v_vendor.ledger_sql.sql_ledger import prune_results


@pytest.fixture
def sold(shop: Shop) -> Shop:
    """Entries: 1 top-up, 2 charge of two, 3 charge by another key, 4 refund, 5 top-up; then a new signing key."""
    other, _ = shop.accounts.create_key(shop.account, scopes=DEFAULT_SCOPES, limit_units=5)
    shop.charge(shop.order("a", "b"))
    shop.charge(shop.order("c", key=other))
    shop.accounts.refund(shop.account, 2, 1, "blurred")
    shop.accounts.top_up(shop.account, 5)
    empty = shop.accounts.create_account("empty", budget_units=0)
    idle, _ = shop.accounts.create_key(empty, scopes=DEFAULT_SCOPES, lifetime_seconds=60, name="idle")
    shop.accounts.revoke_key(idle.id)
    shop.accounts.revoke_key(idle.id)
    shop.accounts.ensure_prices("other", {"image": 1, "text": 2}, "EUR")
    with writing(shop.engine).begin() as connection:
        publish_keys(connection, rotated_signer())
    return shop


def test_honest_books_are_clean(sold: Shop) -> None:
    report = verified(sold)
    assert report.problems == []
    assert (report.accounts, report.entries, report.items) == (2, 5, 3)


_SAME = "created_at, expires_at, revoked_at FROM api_keys WHERE name = 'idle'"

TAMPERING = {
    "UPDATE ledger SET note = 'x' WHERE seq = 4": {"hash_mismatch"},
    "UPDATE ledger SET amount_micro = 1 WHERE seq = 2": {"hash_mismatch", "amount_mismatch"},
    "UPDATE ledger SET unit_price_micro = 1 WHERE seq = 3": {"hash_mismatch", "amount_mismatch", "price_mismatch"},
    "UPDATE ledger SET prev_hash = entry_hash WHERE seq = 3": {"hash_mismatch", "chain_break"},
    "UPDATE ledger SET created_at = 1 WHERE seq = 3": {"hash_mismatch", "time_went_back"},
    "UPDATE ledger SET units = 2 WHERE kind = 'refund'": {
        "hash_mismatch",
        "amount_mismatch",
        "running_total",
        "budget_mismatch",
        "act_mismatch",
    },
    "UPDATE prices SET unit_price_micro = 99": {"price_mismatch"},
    "UPDATE charge_items SET result_sha = item_key WHERE idx = 1": {"items_mismatch", "result_mismatch"},
    "UPDATE charge_items SET units = 2 WHERE idx = 1": {"items_mismatch", "units_mismatch"},
    "DELETE FROM charge_items WHERE idx = 1": {"items_mismatch", "units_mismatch", "orphan_result"},
    "UPDATE charge_items SET seq = 99 WHERE seq = 3": {"items_mismatch", "units_mismatch", "orphan_item"},
    "UPDATE budgets SET used_units = 1 WHERE used_units = 2": {"budget_mismatch"},
    "UPDATE budgets SET used_units = 2 WHERE api_key_id IS NOT NULL": {"budget_mismatch"},
    "UPDATE budgets SET limit_units = 9 WHERE api_key_id IS NOT NULL": {"key_mismatch"},
    "UPDATE budgets SET last_created_at = 1 WHERE api_key_id IS NULL": {"head_mismatch"},
    "DELETE FROM budgets WHERE api_key_id IS NOT NULL": {"key_mismatch"},
    "DELETE FROM budgets WHERE api_key_id IS NULL AND limit_units = 0": {"head_mismatch"},
    "DELETE FROM budgets WHERE api_key_id IS NULL AND limit_units > 0": {"head_mismatch", "budget_mismatch"},
    "UPDATE budgets SET last_seq = 4 WHERE last_seq = 5": {"head_mismatch"},
    "UPDATE results SET vector = substr(vector, 5)": {"result_mismatch"},
    "UPDATE results SET vector = substr(vector, 1, 1)": {"result_mismatch"},
    "UPDATE results SET item_key = 'x' WHERE item_key = (SELECT min(item_key) FROM results)": {"orphan_result"},
    "UPDATE results SET account_id = 'x'": {"orphan_result"},
    "DELETE FROM ledger WHERE seq = 1": {
        "orphan_signature",
        "gap_in_seq",
        "chain_break",
        "running_total",
        "budget_mismatch",
        "missing_entry",
    },
    "DELETE FROM ledger WHERE seq = 5": {"head_mismatch", "budget_mismatch", "missing_entry", "orphan_signature"},
    "UPDATE ledger SET ref_seq = 3 WHERE kind = 'refund'": {"hash_mismatch", "refund_mismatch"},
    "UPDATE ledger SET ref_seq = 1 WHERE kind = 'refund'": {"hash_mismatch", "refund_mismatch"},
    "UPDATE ledger SET ledger_id = 'other' WHERE seq = 2": {"hash_mismatch", "foreign_entry"},
    "UPDATE ledger SET signing_key_id = 'other' WHERE seq = 2": {"hash_mismatch", "unknown_signing_key"},
    "UPDATE ledger SET request_id = 'other' WHERE seq = 5": {"hash_mismatch", "unlogged_act", "missing_entry"},
    "UPDATE ledger SET kind = 'restored' WHERE seq = 5": {
        "gap_in_seq",
        "hash_mismatch",
        "units_mismatch",
        "running_total",
        "budget_mismatch",
        "act_mismatch",
    },
    "UPDATE api_keys SET account_id = (SELECT id FROM accounts WHERE name = 'empty')": {
        "unknown_api_key",
        "key_mismatch",
    },
    "UPDATE api_keys SET name = 'other' WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET prefix = 'other' WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET secret_sha256 = 'other' WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET scopes = 'admin' WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET created_at = 1 WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET expires_at = NULL WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET revoked_at = NULL WHERE name = 'idle'": {"key_mismatch"},
    "UPDATE api_keys SET revoked_at = 1 WHERE name <> 'idle'": {"key_mismatch"},
    "DELETE FROM api_keys WHERE name = 'idle'": {"missing_key"},
    f"INSERT INTO api_keys SELECT 'new', account_id, name, prefix, '', scopes, {_SAME}": {"unlogged_key"},
    "UPDATE accounts SET name = 'other' WHERE name = 'acme'": {"account_mismatch"},
    "UPDATE accounts SET created_at = 1": {"account_mismatch"},
    "UPDATE accounts SET currency = 'USD' WHERE name = 'empty'": {"account_mismatch"},
    "DELETE FROM accounts WHERE name = 'empty'": {"missing_account"},
    "INSERT INTO accounts VALUES ('new', 'new', 'EUR', 1)": {"unlogged_account", "head_mismatch"},
    "UPDATE prices SET valid_from = 1": {"price_mismatch"},
    "UPDATE prices SET unit_price_micro = 3 WHERE model_id = 'other' AND modality = 'text'": {"price_mismatch"},
    "UPDATE prices SET model_id = 'new' WHERE model_id = 'other'": {"price_mismatch"},
    "INSERT INTO prices VALUES (99, 'other', 'image', 0, 'EUR', 1)": {"unlogged_price"},
    "DELETE FROM prices WHERE model_id = 'other'": {"missing_price"},
    "UPDATE budgets SET limit_units = 0 WHERE api_key_id IS NOT NULL": {"budget_exceeded", "key_mismatch"},
    "DELETE FROM admin_log WHERE act = 'refund'": {"unlogged_act", "log_chain_break"},
    "DELETE FROM admin_log WHERE act = 'create_account'": {"unlogged_act", "unlogged_account", "log_chain_break"},
    "DELETE FROM admin_log WHERE act = 'create_key'": {"unlogged_key", "log_chain_break"},
    "DELETE FROM admin_log WHERE act = 'revoke_key'": {"key_mismatch", "log_chain_break"},
    "DELETE FROM admin_log WHERE act = 'ensure_prices'": {"unlogged_price", "log_chain_break"},
    "UPDATE admin_log SET created_at = 1 WHERE act = 'set_price'": {"price_mismatch", "log_chain_break"},
    "UPDATE admin_log SET parameters = '{\"units\": 6}' WHERE act = 'top_up'": {"act_mismatch", "log_chain_break"},
    "UPDATE admin_log SET parameters = 'x' WHERE act = 'top_up'": {"act_mismatch", "unreadable_act", "log_chain_break"},
    "UPDATE admin_log SET parameters = '[]' WHERE act = 'refund'": {"act_mismatch", "log_chain_break"},
    "UPDATE admin_log SET outcome = '[]' WHERE act = 'revoke_key'": {
        "unreadable_act",
        "key_mismatch",
        "log_chain_break",
    },
    "UPDATE signing_keys SET public_key = 'x' WHERE predecessor_id IS NOT NULL": {"key_chain_break", "bad_signature"},
    "UPDATE signing_keys SET predecessor_id = 'x' WHERE predecessor_id IS NULL": {"key_chain_break"},
    "UPDATE signing_keys SET predecessor_signature = '' WHERE predecessor_id IS NOT NULL": {"key_chain_break"},
    "UPDATE signing_keys SET predecessor_signature = 'x' WHERE predecessor_id IS NULL": {"key_chain_break"},
    "UPDATE signing_keys SET retired_at = 3 WHERE predecessor_id IS NULL": {"key_chain_break"},
    "UPDATE signing_keys SET retired_at = 3 WHERE predecessor_id IS NOT NULL": {"key_chain_break"},
}


def test_tampering_is_named(sold: Shop) -> None:
    assert {statement: found(sold, statement) for statement in TAMPERING} == TAMPERING
    assert verified(sold).clean


def test_a_public_key_that_was_swapped_is_named_and_refused(shop: Shop) -> None:
    other = fixed_signer(3).published_keys[0].public_key
    assert found(shop, f"UPDATE signing_keys SET public_key = '{other}'") == {"key_chain_break", "bad_signature"}
    with writing(shop.engine).begin() as connection:
        connection.execute(text(f"UPDATE signing_keys SET public_key = '{other}'"))
    with writing(shop.engine).begin() as connection, pytest.raises(WrongSecrets, match="another public key"):
        publish_keys(connection, shop.signer)


def test_the_hash_of_a_secret_is_not_looked_for_in_acts_that_did_not_log_it(sold: Shop) -> None:
    before = "UPDATE admin_log SET outcome = json_object('api_key_id', json_extract(outcome, '$.api_key_id'))"
    if not is_postgresql(sold.engine):
        assert found(sold, f"{before} WHERE act = 'create_key'") == {"log_chain_break"}


def test_pruning_deletes_expired_vectors_only_and_keeps_the_books_clean(sold: Shop) -> None:
    assert prune_results(sold.engine, sold.clock) == 0
    with writing(sold.engine).begin() as connection:
        connection.execute(text("UPDATE results SET expires_at = 1 WHERE item_key <> :kept"), {"kept": item_key("c")})
    assert prune_results(sold.engine, sold.clock) == 2
    assert verified(sold).clean
