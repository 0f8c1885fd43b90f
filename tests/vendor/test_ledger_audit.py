"""The audit surface: what a client can check offline."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from pydantic import TypeAdapter

from support.ledger.ledger_shop import Shop, fixed_signer, item_key
from support.ledger.tampered_books import edit_rows
from vl2v_contract.records import Receipt, SigningKey, Totals, head_message, receipt_message, successor_message, verify
from vl2v_vendor.domain.errors import LedgerUnavailable, NotFound
from vl2v_vendor.keys.secrets import StoredKey, VendorSecrets
from vl2v_vendor.ledger_sql.key_publication import WrongSecrets
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.service.audit import Audit, sign_receipt

pytestmark = pytest.mark.anyio


def audit_of(shop: Shop, ledger: SqlLedger) -> Audit:
    return Audit(ledger, shop.signer, shop.clock)


async def test_pages_are_gapless_and_end_at_the_signed_head(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        for name in ("a", "b", "c"):
            await ledger.charge(shop.order(name, f"{name} again"))
        audit = audit_of(shop, ledger)
        after_seq: int | None = 0
        seen = []
        while after_seq is not None:
            page = await audit.statement(shop.account.id, after_seq, 3)
            seen += [posted.entry.seq for posted in page.entries]
            after_seq = page.next_after_seq
        assert seen == [1, 2, 3, 4]
        assert [len(posted.items) for posted in page.entries] == [2]
        signed = page.signed_head
        assert (signed.head.seq, signed.head.entry_hash) == (4, page.entries[-1].entry_hash)
        [key] = (await audit.public_keys()).keys
        assert verify(key.public_key, head_message(asdict(signed.head)), signed.signature)
        assert not verify(key.public_key, head_message(asdict(replace(signed.head, used_units=0))), signed.signature)


async def test_an_empty_page_says_so(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        page = await audit_of(shop, ledger).statement(shop.account.id, 1)
        assert (page.entries, page.next_after_seq) == ((), None)


async def test_a_request_can_be_looked_up_with_the_receipt_first_given(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        order = shop.order("cat")
        charge = await ledger.charge(order)
        assert charge.posted is not None
        record = await audit_of(shop, ledger).request(shop.account.id, order.request_id)
        assert record.receipt == sign_receipt(shop.signer, charge.posted)
        assert record.items == charge.posted.items
        TypeAdapter(Receipt).validate_python(asdict(record.receipt))
        public_key = shop.signer.published_keys[0].public_key
        assert verify(public_key, receipt_message(record.receipt.entry.hash()), record.receipt.signature)
        with pytest.raises(NotFound):
            await audit_of(shop, ledger).request(shop.account.id, "req_unknown")
        with pytest.raises(NotFound):
            await audit_of(shop, ledger).statement("acct_unknown")


async def test_the_summary_agrees_with_the_head(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a", "b"))
        await ledger.charge(shop.order("c"))
        shop.accounts.refund(shop.account, 2, 1, "blurred")
        summary = await audit_of(shop, ledger).summary(shop.account.id, "key_1")
        totals = await ledger.totals(shop.account.id)
        assert (summary.total, summary.remaining_units) == (Totals(2, 200), 8)
        assert (totals.units, totals.amount_micro) == (2, 200)
        assert totals.head.used_units == totals.units
        for groups in (totals.by_day, totals.by_model, totals.by_endpoint, totals.by_key):
            assert sum(group.units for group in groups) == 2
        assert [group.name for group in totals.by_endpoint] == ["/v1/embeddings/images"]
        assert len(totals.by_day[0].name) == len("2026-01-01")


@pytest.mark.parametrize("column", ["model_id", "endpoint", "api_key_id"])
async def test_the_sums_of_a_ledger_that_was_edited_are_refused_with_the_remedy(shop: Shop, column: str) -> None:
    async with shop.open_ledger() as ledger:
        await ledger.charge(shop.order("a"))
        await ledger.charge(shop.order("b"))
        edit_rows(shop.engine, "ledger", "update", f"UPDATE ledger SET {column} = NULL WHERE seq = 2")
        with pytest.raises(LedgerUnavailable, match=f"charge .* no {column}.* ledger verify"):
            await audit_of(shop, ledger).summary(shop.account.id, "key_1")


def test_a_new_key_signs_and_old_receipts_stay_byte_identical(shop: Shop) -> None:
    old = StoredKey(SigningKey.from_seed(b"\x01" * 32), 1, None)
    rotated = VendorSecrets(b"pepper", (old,)).with_new_key(now=2).signer()

    async def before(ledger: SqlLedger) -> str:
        charge = await ledger.charge(shop.order("a"))
        assert charge.posted is not None
        return sign_receipt(shop.signer, charge.posted).signature

    signature = shop.run(before)
    shop.signer = rotated

    async def after(ledger: SqlLedger) -> None:
        charge = await ledger.charge(shop.order("b"))
        assert charge.posted is not None
        assert charge.posted.entry.signing_key_id == rotated.key_id
        [_, first, second] = await ledger.entries(shop.account.id, after_seq=0, limit=10)
        assert sign_receipt(rotated, first).signature == signature
        [old_key, new_key] = await ledger.published_keys()
        assert (old_key.retired_at, new_key.retired_at, new_key.predecessor_id) == (2, None, old_key.key_id)
        assert new_key.predecessor_signature is not None
        assert verify(old_key.public_key, successor_message(new_key.public_key), new_key.predecessor_signature)
        assert verify(new_key.public_key, receipt_message(second.entry_hash), sign_receipt(rotated, second).signature)

    shop.run(after)


def test_secrets_of_another_database_are_refused(shop: Shop) -> None:
    shop.charge(shop.order("a"))
    shop.signer = fixed_signer(seed=2)
    with pytest.raises(WrongSecrets):
        shop.run(lambda ledger: ledger.ping())


async def test_entries_are_found_by_their_numbers_with_their_items(shop: Shop) -> None:
    async with shop.open_ledger() as ledger:
        for names in (("a", "b"), ("c",), ("d", "e")):
            await ledger.charge(shop.order(*names))
        everything = await ledger.entries(shop.account.id, after_seq=0, limit=100)
        assert await ledger.find_entries(shop.account.id, [4, 2]) == [everything[1], everything[3]]
        assert [item.item_key for item in everything[3].items] == [item_key("d"), item_key("e")]
        assert await ledger.find_entries(shop.account.id, [9]) == []
        assert await ledger.find_entries("acct_of_another", [2]) == []
