"""The fake vendor's books: a hash chain with signed receipts and heads, honest unless `history` says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry, items_hash
from vl2v_contract.signatures import SigningKey, head_message, receipt_message, successor_message

LEDGER_ID = "fake-ledger"
ACCOUNT_ID = "acct_client"
Body = dict[str, Any]


@dataclass(frozen=True)
class Posted:
    entry: LedgerEntry
    items: tuple[ChargedItem, ...]

    @property
    def hash(self) -> str:
        return self.entry.hash()


class FakeLedger:
    """One account. `history` may show the statement's readers another chain than the true one."""

    def __init__(self, *, budget: int) -> None:
        self.model_id, self.weights_sha = "fake/clip", "5" * 64
        self.prices = {"image": (1, 100), "text": (2, 10)}
        self.keys = [SigningKey.from_seed(b"\1" * 32)]
        self.api_key_id = "key_client"
        self.posted: list[Posted] = []
        self.limit_units = self.used_units = 0
        self.clock = 1_767_225_600_000_000
        self.history: Callable[[list[Posted]], list[Posted]] = lambda posted: posted
        self.post("topup", units=budget)

    @property
    def billed_units(self) -> int:
        return sum(posted.entry.units for posted in self.posted if posted.entry.kind == "charge")

    def post(
        self, kind: str, units: int, items: Sequence[ChargedItem] = (), modality: str | None = None, **over: Any
    ) -> Posted:
        price_id, unit_price = self.prices[modality] if modality else (None, 0)
        self.limit_units += units if kind == "topup" else 0
        self.used_units += {"charge": units, "refund": -units}.get(kind, 0)
        self.clock += 1000
        fields: Body = {
            "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "seq": len(self.posted) + 1, "kind": kind,
            "request_id": f"req_{len(self.posted) + 1}", "api_key_id": self.api_key_id if kind == "charge" else None,
            "endpoint": f"/v1/embeddings/{modality}s" if modality else None, "modality": modality,
            "model_id": self.model_id if modality else None, "weights_sha": self.weights_sha if modality else None,
            "precision": "fp32" if modality else None, "preprocessing_id": "fake-v1" if modality else None,
            "units": units, "price_id": price_id, "unit_price_micro": unit_price, "amount_micro": units * unit_price,
            "currency": "EUR", "items_hash": items_hash(items) if items else None, "ref_seq": None, "note": None,
            "used_units": self.used_units, "limit_units": self.limit_units, "created_at": self.clock,
            "signing_key_id": self.keys[-1].key_id,
            "prev_hash": self.posted[-1].hash if self.posted else GENESIS_HASH,
        }  # fmt: skip
        posted = Posted(LedgerEntry(**{**fields, **over}), tuple(items))
        self.posted.append(posted)
        return posted

    def rotate_key(self) -> None:
        self.keys.append(SigningKey.from_seed(bytes([len(self.keys) + 1]) * 32))

    def signer_of(self, entry: LedgerEntry) -> SigningKey:
        return next(key for key in self.keys if key.key_id == entry.signing_key_id)

    def receipt(self, posted: Posted) -> Body:
        signature = self.signer_of(posted.entry).sign(receipt_message(posted.hash))
        return {
            "entry": asdict(posted.entry), "entry_hash": posted.hash,
            "key_id": posted.entry.signing_key_id, "signature": signature,
        }  # fmt: skip

    def public_keys(self) -> list[Body]:
        rows: list[Body] = []
        for place, key in enumerate(self.keys):
            older = self.keys[place - 1] if place else None
            rows.append({
                "key_id": key.key_id, "public_key": key.public_key, "created_at": place, "retired_at": None,
                "predecessor_id": older.key_id if older else None,
                "predecessor_signature": older.sign(successor_message(key.public_key)) if older else None,
            })  # fmt: skip
        return rows

    def summary(self) -> Body:
        amount = sum(posted.entry.amount_micro for posted in self.posted)
        return {
            "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "api_key_id": self.api_key_id,
            "currency": "EUR", "limit_units": self.limit_units,
            "used_units": self.used_units, "remaining_units": self.limit_units - self.used_units,
            "total": {"units": self.used_units, "amount_micro": amount}, "by_day": [], "by_model": [],
            "by_endpoint": [], "by_key": [], "head_seq": len(self.posted), "head_hash": self.posted[-1].hash,
        }  # fmt: skip

    def statement(self, after_seq: int = 0, limit: int = 500) -> Body:
        history = self.history(list(self.posted))
        rows = history[after_seq : after_seq + limit]
        end = history[-1]
        head = {
            "v": 1, "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "seq": end.entry.seq,
            "entry_hash": end.hash, "used_units": end.entry.used_units, "limit_units": end.entry.limit_units,
            "signed_at": self.clock, "key_id": self.keys[-1].key_id,
        }  # fmt: skip
        entries = [
            {"entry": asdict(row.entry), "entry_hash": row.hash, "items": [asdict(item) for item in row.items]}
            for row in rows
        ]
        signed = {"head": head, "signature": self.keys[-1].sign(head_message(head))}
        following = after_seq + limit if after_seq + limit < len(history) else None
        return {"entries": entries, "signed_head": signed, "next_after_seq": following}

    def find(self, request_id: str) -> Posted | None:
        return next((row for row in self.posted if row.entry.request_id == request_id), None)


def rechained(history: Sequence[Posted]) -> list[Posted]:
    """A history made consistent again after an edit: seq, totals and hashes anew, as a lying vendor would do it."""
    fresh: list[Posted] = []
    used = limit = 0
    for seq, row in enumerate(history, 1):
        entry = row.entry
        used += {"charge": entry.units, "refund": -entry.units}.get(entry.kind, 0)
        limit += entry.units if entry.kind == "topup" else 0
        items = items_hash(row.items) if row.items else None
        before = fresh[-1].hash if fresh else GENESIS_HASH
        entry = replace(entry, seq=seq, used_units=used, limit_units=limit, items_hash=items, prev_hash=before)
        fresh.append(Posted(entry, row.items))
    return fresh
