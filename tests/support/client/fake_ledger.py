"""The fake vendor's books: a hash chain with signed receipts and heads, honest unless `history` says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

from vl2v_contract.chain import GENESIS_HASH, RESTORE_MARGIN, ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import SigningKey, head_message, receipt_message, successor_message

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
        self._requests = count(1)
        self.limit_units = self.used_units = 0
        self.clock = 1_767_225_600_000_000
        self.shows_signatures = True
        self.unsigned: set[int] = set()
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
            "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "kind": kind,
            "seq": self.posted[-1].entry.seq + 1 if self.posted else 1,
            "request_id": f"req_{next(self._requests)}", "api_key_id": self.api_key_id if kind == "charge" else None,
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

    def refund(self, seq: int, units: int) -> Posted:
        """Give units of a charge back: the entry repeats what the charge says of key, model and price."""
        charge = next(row.entry for row in self.posted if row.entry.seq == seq)
        names = ("api_key_id", "endpoint", "modality", "model_id", "weights_sha", "precision", "preprocessing_id")
        repeated = {name: getattr(charge, name) for name in (*names, "price_id", "unit_price_micro")}
        return self.post("refund", units, amount_micro=units * charge.unit_price_micro, ref_seq=seq, **repeated)

    def lose_entries(self, after_seq: int, *, up_to_seq: int | None = None) -> list[Posted]:
        """Go back to a backup that ends at `after_seq`, and say so; returns the entries that are lost.

        `up_to_seq` is the last number that the vendor knows it gave out.
        """
        lost = [row for row in self.posted if row.entry.seq > after_seq]
        self.posted = [row for row in self.posted if row.entry.seq <= after_seq]
        end = self.posted[-1].entry
        self.used_units, self.limit_units = end.used_units, end.limit_units
        known = up_to_seq or lost[-1].entry.seq
        self.post("restored", 0, ref_seq=known, seq=known + 1 + RESTORE_MARGIN, note="lost head")
        return lost

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
        history = self.history(list(self.posted))
        signs = {"charge": 1, "refund": -1}
        units = sum(signs.get(row.entry.kind, 0) * row.entry.units for row in history)
        amount = sum(signs.get(row.entry.kind, 0) * row.entry.amount_micro for row in history)
        end = history[-1]
        return {
            "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "api_key_id": self.api_key_id,
            "currency": "EUR", "limit_units": end.entry.limit_units, "used_units": end.entry.used_units,
            "remaining_units": end.entry.limit_units - end.entry.used_units,
            "total": {"units": units, "amount_micro": amount}, "by_day": [], "by_model": [],
            "by_endpoint": [], "by_key": [], "head_seq": end.entry.seq, "head_hash": end.hash,
        }  # fmt: skip

    def statement(self, after_seq: int = 0, limit: int = 500, *, signed: bool = False) -> Body:
        history = self.history(list(self.posted))
        rest = [row for row in history if row.entry.seq > after_seq]
        rows, end = rest[:limit], history[-1]
        head = {
            "v": 1, "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "seq": end.entry.seq,
            "entry_hash": end.hash, "used_units": end.entry.used_units, "limit_units": end.entry.limit_units,
            "signed_at": self.clock, "key_id": self.keys[-1].key_id,
        }  # fmt: skip
        entries = [
            {"entry": asdict(row.entry), "entry_hash": row.hash, "items": [asdict(item) for item in row.items]}
            for row in rows
        ]
        signed_head = {"head": head, "signature": self.keys[-1].sign(head_message(head))}
        following = rows[-1].entry.seq if len(rest) > limit else None
        shown = {"signatures": [self.signature(row) for row in rows]} if signed and self.shows_signatures else {}
        return {"entries": entries, "signed_head": signed_head, "next_after_seq": following, **shown}

    def signature(self, posted: Posted) -> str | None:
        """The entry's signature as a statement shows it; by the newest key if it names none of ours."""
        signers = [key for key in self.keys if key.key_id == posted.entry.signing_key_id] or self.keys[-1:]
        return None if posted.entry.seq in self.unsigned else signers[0].sign(receipt_message(posted.hash))


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
