"""Signed records are refused when they hold what no vendor could have signed, on the wire and off it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import (
    Breakdown,
    PublicKey,
    Receipt,
    RequestRecord,
    SignedHead,
    Statement,
    StatementEntry,
    StatementHead,
    Summary,
    Totals,
)

GOLDEN = Path(__file__).parent / "golden"
ENTRY: dict[str, Any] = json.loads((GOLDEN / "entry.json").read_text())["entry"]
HEAD: dict[str, Any] = json.loads((GOLDEN / "head.json").read_text())["head"]
RECEIPT = Receipt(LedgerEntry(**ENTRY), "a" * 64, "k", "s")
RECORDS: list[Any] = [
    RECEIPT,
    StatementEntry(RECEIPT.entry, "a" * 64, ()),
    StatementHead(**HEAD),
    SignedHead(StatementHead(**HEAD), "s"),
    Statement((), SignedHead(StatementHead(**HEAD), "s"), None),
    PublicKey("k", "p", 1, None, None, None),
    Totals(1, 2),
    Breakdown(1, 2, "day"),
    RequestRecord(RECEIPT, ()),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written_and_no_other_field_with_it(record: Any) -> None:
    reader: TypeAdapter[Any] = TypeAdapter(type(record))
    body = json.loads(reader.dump_json(record))
    assert reader.validate_json(json.dumps(body)) == record
    with pytest.raises(ValidationError):
        reader.validate_json(json.dumps({**body, "more": 1}))


@pytest.mark.parametrize("entry_hash", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_a_hash_of_another_form_is_refused(entry_hash: str) -> None:
    for record in RECORDS[:3]:
        with pytest.raises(ValidationError, match="entry_hash"):
            TypeAdapter(type(record)).validate_python({**asdict(record), "entry_hash": entry_hash})
        with pytest.raises(ValueError, match="entry_hash"):
            type(record)(**{**{name: getattr(record, name) for name in record.__slots__}, "entry_hash": entry_hash})


@pytest.mark.parametrize("name", ["seq", "used_units", "limit_units", "signed_at"])
@pytest.mark.parametrize("number", [-1, 2**53])
def test_a_head_holds_numbers_that_canonical_json_can_hold(name: str, number: int) -> None:
    with pytest.raises(ValidationError, match=name):
        TypeAdapter(StatementHead).validate_python({**HEAD, name: number})


def test_a_receipt_is_kept_as_text() -> None:
    assert Receipt.from_json(RECEIPT.to_json()) == RECEIPT
    assert json.loads(RECEIPT.to_json()) == asdict(RECEIPT)
    with pytest.raises(ValueError, match="not a receipt"):
        Receipt.from_json("{}")


def test_a_summary_keeps_the_order_of_its_fields() -> None:
    total = Totals(1, 2)
    groups = {name: (Breakdown(1, 2, name),) for name in ("by_day", "by_model", "by_endpoint", "by_key")}
    names = {"ledger_id": "l", "account_id": "a", "api_key_id": "k", "currency": "EUR", "head_hash": "0" * 64}
    numbers = dict.fromkeys(("limit_units", "used_units", "remaining_units", "head_seq"), 1)
    body = json.loads(TypeAdapter(Summary).dump_json(Summary(**names, **numbers, total=total, **groups)))
    assert list(body)[-2:] == ["head_seq", "head_hash"]
    assert list(body["by_day"][0]) == ["units", "amount_micro", "name"]
