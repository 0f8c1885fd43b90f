"""The statement with its entries' signatures: what the vendor made is told from what others wrote into its database."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from sqlalchemy import insert, select, text

from support.ledger.forged_entries import forge_charge, forge_top_up, sign_badly
from support.ledger.ledger_shop import Shop, rotated_signer
from support.ledger.tampered_books import forget_signatures
from vl2v_contract.chain import GENESIS_HASH
from vl2v_contract.records import SignedStatement, head_message, receipt_message, verify
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.tables import entry_signatures
from vl2v_vendor.service.audit import Audit


def signed(shop: Shop, after_seq: int = 0, limit: int = 10) -> SignedStatement:
    return shop.run(
        lambda ledger: Audit(ledger, shop.signer, shop.clock).signed_statement(shop.account.id, after_seq, limit)
    )


def makers(shop: Shop, page: SignedStatement) -> list[bool]:
    """Whether the vendor made each entry, by its signature."""
    keys = {key.key_id: key.public_key for key in shop.signer.published_keys}
    return [
        verify(keys[row.entry.signing_key_id], receipt_message(row.entry_hash), signature or "")
        for row, signature in zip(page.entries, page.signatures or (), strict=True)
    ]


@pytest.fixture
def sold(shop: Shop) -> Shop:
    shop.charge(shop.order("a", "b"))
    shop.accounts.top_up(shop.account, 5)
    shop.signer = rotated_signer()
    shop.accounts = replace(shop.accounts, signer=shop.signer)
    shop.charge(shop.order("c"))
    return shop


def test_each_entry_has_the_signature_of_its_receipt_on_every_page(sold: Shop) -> None:
    pages = [signed(sold, after_seq, 3) for after_seq in (0, 3)]
    assert [[row.entry.seq for row in page.entries] for page in pages] == [[1, 2, 3], [4]]
    assert [makers(sold, page) for page in pages] == [[True] * 3, [True]]
    assert [page.next_after_seq for page in pages] == [3, None]
    assert [page.signed_head.head.seq for page in pages] == [4, 4]


@pytest.mark.parametrize("forge", [forge_top_up, forge_charge, sign_badly])
def test_a_forged_entry_is_shown_behind_the_last_that_the_vendor_made(sold: Shop, forge: object) -> None:
    honest = signed(sold).signed_head.head
    with writing(sold.engine).begin() as connection:
        forge(connection, sold)  # type: ignore[operator]
    with pytest.raises(LedgerUnavailable):
        sold.run(lambda ledger: Audit(ledger, sold.signer, sold.clock).statement(sold.account.id))
    page = signed(sold)
    assert makers(sold, page) == [True] * 4 + [False]
    head = page.signed_head.head
    assert asdict(head) | {"signed_at": 0} == asdict(honest) | {"signed_at": 0}
    assert verify(sold.signer.published_keys[1].public_key, head_message(asdict(head)), page.signed_head.signature)
    assert [signed(sold, 0, limit).next_after_seq for limit in (5, 4, 3)] == [None, None, 3]


def test_signatures_that_are_not_the_vendors_end_no_head(sold: Shop) -> None:
    with writing(sold.engine).begin() as connection:
        forge_charge(connection, sold)
    forget_signatures(sold.engine, "DELETE FROM entry_signatures WHERE seq > 2")
    with writing(sold.engine).begin() as connection:
        others = [{"account_id": sold.account.id, "seq": seq, "signature": "AAAA"} for seq in (3, 4, 5)]
        connection.execute(insert(entry_signatures), others)
    page = signed(sold)
    assert makers(sold, page) == [True] * 2 + [False] * 3
    assert page.signed_head.head.seq == 2


def test_where_the_vendor_signed_nothing_the_head_is_the_beginning(sold: Shop) -> None:
    with writing(sold.engine).begin() as connection:
        act_signature = connection.execute(select(entry_signatures).limit(1)).one()
    forget_signatures(sold.engine, "DELETE FROM entry_signatures")
    page = signed(sold)
    head = page.signed_head.head
    assert (head.seq, head.entry_hash, page.signatures) == (0, GENESIS_HASH, (None,) * 4)
    with writing(sold.engine).begin() as connection:
        connection.execute(insert(entry_signatures).values(dict(act_signature._mapping)))
    assert signed(sold).signed_head.head.seq == 1


@pytest.mark.parametrize(
    "change", ["limit_units = 99", "used_units = 1", "last_seq = 5", "last_seq = 0", "head_hash = prev_hash"]
)
def test_no_head_is_signed_that_is_not_the_last_entry(sold: Shop, change: str) -> None:
    """Whoever can write the database would have the vendor sign a limit, or a chain, that no entry has."""
    value = change.replace("prev_hash", f"'{'0' * 64}'")
    with writing(sold.engine).begin() as connection:
        connection.execute(text(f"UPDATE budgets SET {value} WHERE api_key_id IS NULL"))
    for ask in (
        lambda: sold.run(lambda ledger: Audit(ledger, sold.signer, sold.clock).statement(sold.account.id)),
        lambda: sold.accounts.statement(sold.account, 0),
    ):
        with pytest.raises(LedgerUnavailable, match="ledger verify"):
            ask()
    head = signed(sold).signed_head.head
    assert (head.seq, head.used_units, head.limit_units) == (4, 3, 15)
