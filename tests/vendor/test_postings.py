"""The rules of charges, top-ups, refunds and restored entries, without SQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vl2v_contract.chain import (
    GENESIS_HASH,
    RESTORE_MARGIN,
    ChainEnd,
    ChargedItem,
    ChargeTerms,
    EntryOrigin,
    LedgerEntry,
    follows,
    items_hash,
)
from vl2v_contract.identity import MAX_INTEGER
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import decide_refund, decide_top_up

ORIGIN = EntryOrigin("req_1", 100, "key")
EMPTY = ChainEnd(
    ledger_id="ledger",
    account_id="acct",
    currency="EUR",
    seq=0,
    entry_hash=GENESIS_HASH,
    used_units=0,
    limit_units=0,
    created_at=7,
)
TERMS = ChargeTerms(
    api_key_id="key_1",
    endpoint="/v1/embeddings/images",
    modality="image",
    model_id="m",
    weights_sha="w",
    precision="fp32",
    preprocessing_id="p",
    price_id=3,
)
ITEMS = (ChargedItem("a", "1", 1), ChargedItem("b", "2", 1), ChargedItem("c", "3", 1))


def end_of(entry: LedgerEntry) -> ChainEnd:
    return entry.end(entry.hash())


def charged() -> tuple[LedgerEntry, ChainEnd]:
    raised = decide_top_up(EMPTY, ORIGIN, 10, "invoice")
    entry = LedgerEntry.charge(end_of(raised), ORIGIN, TERMS, ITEMS, 50)
    return entry, end_of(entry)


def test_a_top_up_raises_the_limit_and_moves_no_money() -> None:
    entry = decide_top_up(EMPTY, ORIGIN, 10, "invoice")
    assert (entry.kind, entry.seq, entry.units, entry.limit_units, entry.used_units) == ("topup", 1, 10, 10, 0)
    assert (entry.amount_micro, entry.price_id, entry.api_key_id, entry.items_hash) == (0, None, None, None)
    assert (entry.request_id, entry.created_at, entry.signing_key_id, entry.note) == ("req_1", 100, "key", "invoice")


@pytest.mark.parametrize("units", [0, -1, MAX_INTEGER])
def test_a_top_up_out_of_range_is_refused(units: int) -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        decide_top_up(replace(EMPTY, limit_units=1), ORIGIN, units, None)


def test_a_charge_extends_the_chain() -> None:
    raised = decide_top_up(EMPTY, ORIGIN, 10, None)
    entry = LedgerEntry.charge(end_of(raised), ORIGIN, TERMS, ITEMS, 50)
    assert (entry.seq, entry.prev_hash, entry.items_hash) == (2, raised.hash(), items_hash(ITEMS))
    assert (entry.units, entry.amount_micro, entry.used_units, entry.limit_units) == (3, 150, 3, 10)
    assert (entry.model_id, entry.unit_price_micro, entry.ref_seq, entry.note) == ("m", 50, None, None)


def test_a_refund_repeats_the_product_of_its_charge() -> None:
    charge, end = charged()
    entry = decide_refund(end, replace(ORIGIN, request_id="req_2"), charge, 1, 2, "blurred")
    assert (entry.kind, entry.ref_seq, entry.units, entry.amount_micro) == ("refund", 2, 2, 100)
    assert (entry.used_units, entry.limit_units, entry.items_hash, entry.request_id) == (1, 10, None, "req_2")
    for name in (*ChargeTerms.__slots__, "unit_price_micro"):
        assert getattr(entry, name) == getattr(charge, name)


@pytest.mark.parametrize(("refunded_units", "units"), [(0, 0), (0, -1), (0, 4), (1, 3), (3, 1)])
def test_a_refund_of_more_than_is_left_is_refused(refunded_units: int, units: int) -> None:
    charge, end = charged()
    with pytest.raises(InvalidRequest, match=f"{3 - refunded_units} of its 3 are left"):
        decide_refund(end, ORIGIN, charge, refunded_units, units, "blurred")


@pytest.mark.parametrize("lost_seq", [1, 2, 40])
def test_a_restored_entry_skips_every_number_that_was_given(lost_seq: int) -> None:
    _, end = charged()
    entry = LedgerEntry.restored(end, ORIGIN, lost_seq, "backup")
    assert entry.seq == max(lost_seq, 2) + 1 + RESTORE_MARGIN
    assert follows(2, entry)
    assert (entry.units, entry.amount_micro, entry.used_units, entry.limit_units) == (0, 0, 3, 10)


def test_time_never_goes_back_within_an_account() -> None:
    assert decide_top_up(replace(EMPTY, created_at=500), ORIGIN, 1, None).created_at == 500
