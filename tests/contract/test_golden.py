"""Frozen examples of what is hashed and signed. A change here is a change of every chain and receipt ever issued.

The files were written once, from a run of the contract with a fixed seed, and are never rewritten.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vl2v_contract.chain import ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import Receipt, SigningKey, StatementHead, head_message, receipt_message, verify

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def golden_key() -> SigningKey:
    return SigningKey.from_seed(bytes.fromhex(golden("receipt.json")["seed"]))


def test_ledger_entry() -> None:
    frozen = golden("entry.json")
    assert LedgerEntry(**frozen["entry"]).hash() == frozen["entry_hash"]


def test_ledger_entry_without_our_code() -> None:
    """What another implementation would do: the tag, the canonical text, SHA-256."""
    frozen = golden("entry.json")
    message = b"vl2v-entry-v1\n" + frozen["canonical"].encode("utf-8")
    assert hashlib.sha256(message).hexdigest() == frozen["entry_hash"]
    assert json.loads(frozen["canonical"]) == frozen["entry"]


def test_items_hash() -> None:
    frozen = golden("items_hash.json")
    assert items_hash(ChargedItem(**item) for item in frozen["items"]) == frozen["items_hash"]
    assert golden("entry.json")["entry"]["items_hash"] == frozen["items_hash"]


def test_receipt() -> None:
    frozen, key = golden("receipt.json"), golden_key()
    assert (key.public_key, key.key_id) == (frozen["public_key"], frozen["key_id"])
    message = receipt_message(frozen["entry_hash"])
    assert message.hex() == frozen["message"]
    assert key.sign(message) == frozen["signature"]
    assert verify(frozen["public_key"], message, frozen["signature"])


def test_receipt_on_the_wire() -> None:
    entry, receipt = golden("entry.json"), golden("receipt.json")
    body = {
        "entry": entry["entry"],
        "entry_hash": entry["entry_hash"],
        "key_id": receipt["key_id"],
        "signature": receipt["signature"],
    }
    parsed = TypeAdapter(Receipt).validate_json(json.dumps(body))
    assert parsed.entry.hash() == receipt["entry_hash"]
    assert asdict(parsed) == body


def test_statement_head() -> None:
    frozen, key = golden("head.json"), golden_key()
    message = head_message(frozen["head"])
    assert message.hex() == frozen["message"]
    assert key.sign(message) == frozen["signature"]
    assert asdict(TypeAdapter(StatementHead).validate_python(frozen["head"])) == frozen["head"]
