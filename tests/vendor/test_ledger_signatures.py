"""What the vendor commits, it signs: a row that others added is found, and nothing is built on it or signed with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from sqlalchemy import insert, select, update

from support.ledger.forged_entries import forge_charge, forge_top_up, sign_badly
from support.ledger.ledger_shop import Shop, fixed_signer, rotated_signer
from support.ledger.tampered_books import forget_signatures, found, tampered, verified
from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import receipt_message
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.key_publication import publish_keys
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.ledger_sql.tables import admin_log, entry_signatures, signing_keys

FORGERIES = [(forge_top_up, {"unsigned_entry", "unsigned_act"}), (forge_charge, {"unsigned_entry"})]


@pytest.fixture
def sold(shop: Shop) -> Shop:
    shop.charge(shop.order("a", "b"))
    shop.accounts.top_up(shop.account, 5)
    return shop


@pytest.mark.parametrize(("forge_entry", "codes"), FORGERIES)
def test_an_entry_that_was_forged_by_the_public_hash_is_named(
    sold: Shop, forge_entry: Callable[..., LedgerEntry], codes: set[str]
) -> None:
    with tampered(sold) as connection:
        forge_entry(connection, sold)
        assert {problem.code for problem in verify_ledger(connection).problems} == codes
    assert verified(sold).clean


@pytest.mark.parametrize("forge_entry", [forge_top_up, forge_charge, sign_badly])
def test_nothing_is_built_on_a_forged_entry_nor_signed_with_it(
    sold: Shop, forge_entry: Callable[..., LedgerEntry]
) -> None:
    with writing(sold.engine).begin() as connection:
        forged = forge_entry(connection, sold)
    for act in (
        lambda: sold.charge(sold.order("c")),
        lambda: sold.accounts.top_up(sold.account, 1),
        lambda: sold.accounts.statement(sold.account, 0),
        lambda: sold.run(lambda books: books.head(sold.account.id)),
        lambda: sold.run(lambda books: books.find_request(sold.account.id, "adm_forged")),
        lambda: sold.run(lambda books: books.find_entries(sold.account.id, [2, forged.seq])),
    ):
        with pytest.raises(LedgerUnavailable, match=f"entry {forged.seq} of .* has no signature"):
            act()
    if forge_entry is not sign_badly:
        (earlier,) = sold.run(lambda books: books.find_entries(sold.account.id, [2]))
        assert earlier.entry.seq == 2


EDITS = {
    "UPDATE admin_log SET actor = 'cli:mallory' WHERE act = 'top_up'": {"log_chain_break"},
    "UPDATE admin_log SET outcome = '{}' WHERE act = 'top_up'": {"log_chain_break"},
    "UPDATE admin_log SET request_id = 'other' WHERE act = 'set_price'": {"log_chain_break"},
    "DELETE FROM act_signatures WHERE act_id = 2": {"unsigned_act"},
    "DELETE FROM act_signatures": {"unsigned_act"},
    "DELETE FROM entry_signatures": {"unsigned_entry"},
    "UPDATE act_signatures SET signature = '' WHERE act_id = 2": {"bad_signature"},
    "UPDATE act_signatures SET key_id = '' WHERE act_id = 2": {"bad_signature"},
    "UPDATE act_signatures SET act_hash = 'x' WHERE act_id = 2": {"log_chain_break", "bad_signature"},
    "DELETE FROM entry_signatures WHERE seq = 3": {"unsigned_entry"},
    "DELETE FROM entry_signatures WHERE seq = 2": {"unsigned_entry"},
    "UPDATE entry_signatures SET signature = 'AAAA' WHERE seq = 2": {"bad_signature"},
    "UPDATE entry_signatures SET seq = 9 WHERE seq = 2": {"unsigned_entry", "orphan_signature"},
    "INSERT INTO entry_signatures VALUES ('x', 1, '')": {"orphan_signature"},
}


def test_edits_of_log_and_signatures_are_named(sold: Shop) -> None:
    assert {statement: found(sold, statement) for statement in EDITS} == EDITS


def test_a_row_of_the_staff_that_is_changed_together_with_the_log_is_named(sold: Shop) -> None:
    with tampered(sold, "UPDATE api_keys SET scopes = 'admin'") as connection:
        parameters = connection.execute(select(admin_log.c.parameters).where(admin_log.c.act == "create_key")).scalar()
        raised = json.dumps(
            {**json.loads(parameters or ""), "scopes": ["admin"]}, separators=(",", ":"), sort_keys=True
        )
        connection.execute(update(admin_log).where(admin_log.c.act == "create_key").values(parameters=raised))
        assert {problem.code for problem in verify_ledger(connection).problems} == {"log_chain_break"}


def test_what_another_replica_signs_with_a_newer_key_is_built_on(sold: Shop) -> None:
    async def story(books: SqlLedger) -> None:
        """The server's own copy of the secrets is older than that of the command."""
        await asyncio.to_thread(replace(sold.accounts, signer=rotated_signer()).top_up, sold.account, 1)
        await books.charge(sold.order("c"))

    sold.run(story)
    assert verified(sold).clean


def test_a_key_that_no_key_of_the_vendor_signed_vouches_for_nothing(sold: Shop) -> None:
    stranger = fixed_signer(3)
    with writing(sold.engine).begin() as connection:
        key = asdict(stranger.published_keys[0]) | {"predecessor_id": sold.signer.key_id, "predecessor_signature": ""}
        connection.execute(insert(signing_keys).values(key))
        forged = forge_charge(connection, sold)
        signature = stranger._stored[0].key.sign(receipt_message(forged.hash()))
        row = {"account_id": forged.account_id, "seq": forged.seq, "signature": signature}
        connection.execute(insert(entry_signatures).values(row))
    with pytest.raises(LedgerUnavailable, match=f"entry {forged.seq} .* no signature of this vendor"):
        sold.accounts.top_up(sold.account, 1)


def test_the_ledger_of_an_older_version_is_signed_as_it_is_at_its_first_start(sold: Shop) -> None:
    forget_signatures(sold.engine)
    report = verified(sold)
    assert (report.clean, report.unsigned_before) == (True, {sold.account.id: None})
    sold.charge(sold.order("c"))
    report = verified(sold)
    assert (report.clean, report.unsigned_before) == (True, {sold.account.id: 3})
    *_, act = sold.accounts.acts(limit=100)
    assert act.act == "sign_entries"
    (head,) = act.outcome["heads"]
    assert head[:2] == [sold.account.id, 3]
    with writing(sold.engine).begin() as connection:  # once
        publish_keys(connection, sold.signer)
    assert sold.accounts.acts(limit=100)[-1] == act


def test_a_staff_command_may_be_what_signs_it_first(sold: Shop) -> None:
    forget_signatures(sold.engine)
    sold.accounts.top_up(sold.account, 1)
    assert [act.act for act in sold.accounts.acts(limit=100)][-2:] == ["sign_entries", "top_up"]
    assert verified(sold).clean


def test_an_old_ledger_cannot_be_edited_once_it_is_signed(sold: Shop) -> None:
    forget_signatures(sold.engine)
    sold.charge(sold.order("c"))
    assert found(sold, "UPDATE admin_log SET actor = 'x' WHERE id = 1") == {"log_chain_break"}
    assert "hash_mismatch" in found(sold, "UPDATE ledger SET note = 'x' WHERE seq = 1")


def test_deleted_signatures_of_acts_are_not_made_again(sold: Shop) -> None:
    forget_signatures(sold.engine, "DELETE FROM act_signatures")
    with pytest.raises(LedgerUnavailable, match="signatures of the staff's log are gone"):
        sold.accounts.top_up(sold.account, 1)


def test_what_a_server_of_an_older_version_added_beside_is_signed_by_command(sold: Shop) -> None:
    forget_signatures(sold.engine, "DELETE FROM entry_signatures WHERE seq = 3")
    with pytest.raises(LedgerUnavailable, match="entry 3"):
        sold.charge(sold.order("c"))
    ((account_id, seq, _),) = sold.accounts.sign_entries()
    assert (account_id, seq) == (sold.account.id, 3)
    sold.charge(sold.order("c"))
    assert verified(sold).clean
    assert sold.accounts.sign_entries() == []


def test_signatures_are_those_of_the_receipts(sold: Shop) -> None:
    with sold.engine.connect() as connection:
        rows = connection.execute(select(entry_signatures).order_by(entry_signatures.c.seq)).all()
    posted = sold.run(lambda books: books.entries(sold.account.id, after_seq=0, limit=10))
    assert [row.signature for row in rows] == [
        sold.signer.sign_receipt(entry.entry, entry.entry_hash) for entry in posted
    ]
