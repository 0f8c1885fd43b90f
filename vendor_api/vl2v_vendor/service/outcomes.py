"""What became of a request and of each of its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vl2v_vendor.domain.accounts import Budgets
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import Price, Vector
from vl2v_vendor.service.audit import RequestRecord, SignedReceipt

DeliveredStatus = Literal["billed", "replayed", "recomputed"]


@dataclass(frozen=True, slots=True)
class SignedRecompute:
    """A signed note that a paid result was computed again, free; see the contract's `RecomputeNote`."""

    note: dict[str, int | str]
    signature: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """A vector `[D]` and the ledger entry that paid for it."""

    status: DeliveredStatus
    vector: Vector
    result_sha: str
    seq: int
    recompute: SignedRecompute | None = None


Verdict: TypeAlias = Delivered | ItemFailure


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """One item of the answer, in the request's order."""

    item_key: str | None
    verdict: Verdict
    tokens: int | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class EmbedOutcome:
    """The answer, before it is put on the wire.

    Attributes:
        model_id: whose vectors these are.
        embedding_dim: their width D.
        items: one per item, in order.
        receipt: None when nothing was billed.
        price: in force; what a new item costs.
        budgets: after the request.
        paid_by: the earlier purchases that paid for the free items.
    """

    model_id: str
    embedding_dim: int
    items: tuple[ItemOutcome, ...]
    receipt: SignedReceipt | None
    price: Price
    budgets: Budgets
    paid_by: tuple[RequestRecord, ...] = ()

    @property
    def billed_units(self) -> int:
        """Units that this request was charged."""
        return self.receipt.entry.units if self.receipt is not None else 0

    @property
    def free_units(self) -> int:
        """Items delivered without a charge: paid earlier, or twice in one request."""
        return sum(isinstance(item.verdict, Delivered) and item.verdict.status != "billed" for item in self.items)

    @property
    def earlier_seqs(self) -> list[int]:
        """The entries before this request's own that paid for its free items, in order."""
        own = {self.receipt.entry.seq} if self.receipt is not None else set()
        return sorted({item.verdict.seq for item in self.items if isinstance(item.verdict, Delivered)} - own)

    @property
    def failures(self) -> dict[int, ItemFailure]:
        """The failed items by position."""
        return {i: item.verdict for i, item in enumerate(self.items) if isinstance(item.verdict, ItemFailure)}
