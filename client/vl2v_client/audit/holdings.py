"""Checking the cache itself, offline: every vector, and the receipt that paid for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import numpy as np

from vl2v_client.api.checks import is_unit
from vl2v_client.api.keyring import Keyring
from vl2v_client.cache.records import PaidRow
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorChanged
from vl2v_client.core.progress import Progress, silent
from vl2v_contract.identity import sha256_hex
from vl2v_contract.records import Receipt

_EXAMPLES_KEPT = 20


class Damage(StrEnum):
    """What can be wrong with a paid item."""

    NO_VECTOR = "no_vector"
    NO_RECEIPT = "no_receipt"
    BAD_VECTOR = "bad_vector"
    WRONG_HASH = "wrong_hash"
    BAD_RECEIPT = "bad_receipt"


@dataclass(slots=True)
class HoldingsReport:
    """What a check of the cache found; `examples` pairs an item key with its damage."""

    items: int = 0
    damage: Counter[Damage] = field(default_factory=Counter)
    examples: list[tuple[str, Damage]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every paid item has a sound vector and a sound receipt."""
        return not self.damage


def verify_holdings(cache: EmbeddingCache, *, progress: Progress = silent) -> HoldingsReport:
    """Check every paid item: vector present, finite, of unit norm and of the hash that was billed; receipt signed.

    Sends nothing. Raises `CacheError` if the file itself is damaged.
    """

    @lru_cache(maxsize=64)
    def keyring_of(ledger_id: str) -> Keyring | None:
        try:
            return Keyring(ledger_id, cache.vendors.keys(ledger_id), pinned=cache.vendors.first_key(ledger_id))
        except VendorChanged:
            return None

    @lru_cache(maxsize=1024)  # one receipt pays for many items
    def is_signed(ledger_id: str, receipt: Receipt) -> bool:
        keyring = keyring_of(ledger_id)
        return keyring is not None and keyring.signed_receipt(receipt)

    report = HoldingsReport()
    total = sum(vendor.paid_items for vendor in cache.stats().vendors)
    for row in cache.records.paid_rows():
        report.items += 1
        damage = _damage(row, is_signed)
        if damage is not None:
            report.damage[damage] += 1
            if len(report.examples) < _EXAMPLES_KEPT:
                report.examples.append((row.item_key, damage))
        if report.items % 1000 == 0 or report.items == total:
            progress("verify cache", report.items, total)
    return report


def _damage(row: PaidRow, is_signed: Callable[[str, Receipt], bool]) -> Damage | None:
    if row.vector is None:
        return Damage.NO_VECTOR
    if len(row.vector) % 2 or not is_unit(np.frombuffer(row.vector, dtype="<f2")):
        return Damage.BAD_VECTOR
    expected = row.result_sha if row.recompute_json is None else json.loads(row.recompute_json)["note"]["result_sha"]
    if sha256_hex(row.vector) != expected:
        return Damage.WRONG_HASH
    if row.receipt is None:
        return Damage.NO_RECEIPT
    return None if is_signed(row.ledger_id, row.receipt) else Damage.BAD_RECEIPT
