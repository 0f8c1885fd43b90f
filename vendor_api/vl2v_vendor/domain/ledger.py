"""What goes into the ledger and what comes out of it.

An item is absent, then posted, for ever. A failure leaves it absent. There are no holds: the units are known before
the work, and the charge is one transaction after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.chain import ChargeTerms
from vl2v_contract.identity import Modality
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import Budgets

Vector = NDArray[np.float32]
"""`[D]` unit-norm float32 embedding, as computed and as kept for replay."""


MAX_UNIT_PRICE_MICRO = 10**12
"""A million in the currency; a request of thousands of items then still costs less than 2**53."""


@dataclass(frozen=True, slots=True)
class Price:
    """An immutable version of the price of one modality of one model, per unit."""

    id: int
    model_id: str
    modality: Modality
    unit_price_micro: int
    currency: str
    valid_from: int


@dataclass(frozen=True, slots=True)
class PaidItem:
    """An item that was charged once. `vector` is None when it is past its retention."""

    item_key: str
    seq: int
    fingerprint: str
    result_sha: str
    model_id: str
    weights_sha: str
    precision: str
    preprocessing_id: str
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a request is admitted by, as of one moment: the price in force, what is paid, and what may be spent.

    Attributes:
        paid: Those of the request's items that the account has paid for, by item key.
        budgets: Hint; only the charge itself decides.
    """

    price: Price
    paid: dict[str, PaidItem]
    budgets: Budgets


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with its freshly computed vector, checked finite and of unit norm, ready to be charged.

    Attributes:
        units: One image or one text is one unit.
    """

    units: ClassVar[int] = 1

    item_key: str
    fingerprint: str
    result_sha: str
    vector: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeOrder(ChargeTerms):
    """One request's wish to charge its new items in one transaction, at the price that it was admitted at."""

    account_id: str
    request_id: str
    items: tuple[NewItem, ...]
    allow_partial: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """What became of a charge order.

    Attributes:
        posted: Entry; None when every item was paid by another request meanwhile.
        already_paid: Items that a concurrent request paid first; they are replayed, not charged.
        refused: Keys of the items beyond the longest prefix that the budgets admit (`allow_partial` only).
        budgets: Budgets after the charge.
    """

    posted: StatementEntry | None
    already_paid: tuple[PaidItem, ...]
    refused: tuple[str, ...]
    budgets: Budgets
