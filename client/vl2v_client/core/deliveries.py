"""What the vendor hands over: vectors with the receipts that paid for them, already checked."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.records import Receipt

HalfVector = NDArray[np.float16]  # `[D]` unit-norm float16 embedding, as kept in the cache

# The vendor's codes: a charged item's vector is no longer kept; an item was never paid; it was paid for another model.
EXPIRED, UNKNOWN, OTHER_MODEL = "result_expired", "unknown_item", "unknown_model"

CHARGED = (EXPIRED, OTHER_MODEL, "item_key_mismatch")
"""Codes of items whose keys were charged earlier, so that they stay on the bill."""


@dataclass(frozen=True, slots=True)
class DeliveredItem:
    """One item's vector.

    Attributes:
        result_sha: The hash of the vector that was billed; another one than this vector's if it was `recomputed`.
        seq: The ledger entry that paid for it.
        recompute_json: The vendor's signed note that names both hashes, if it was recomputed.
    """

    item_key: str
    status: Literal["billed", "replayed", "recomputed"]
    vector: HalfVector
    result_sha: str
    seq: int
    recompute_json: str | None = None


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that got no vector; this answer charged nothing for it."""

    item_key: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """The checked answer to one request.

    Attributes:
        receipts: Every ledger entry that paid for an item of this answer, each once.
        billed: The entry that this request made; None when it cost nothing.
    """

    items: tuple[DeliveredItem, ...] = ()
    failed: tuple[FailedItem, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    billed: Receipt | None = None
