"""One request on its way from items to outcomes, as bookkeeping without I/O.

An item key may occur more than once in a request; it is bought once, and its other items are replays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt, RequestRecord, SignedRecompute
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import ApiKey, Budgets
from vl2v_vendor.domain.encoder import ModelInfo, PreparedItem
from vl2v_vendor.domain.errors import ItemFailure, ItemsFailed
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem, PaidItem, Price, Vector, admit
from vl2v_vendor.service.preparation import ItemSource

DeliveredStatus = Literal["billed", "replayed", "recomputed"]

BEYOND_BUDGET = "budget_exhausted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleRequest:
    """What one caller wants to buy.

    Attributes:
        endpoint: Path of the request, as the ledger entry names it.
        model: Model id; None is the model on sale.
        truncate: Whether long texts are cut instead of refused.
        item_keys: One per item, or None for keys that the vendor makes.
        idempotency_key: Header from which missing item keys are made.
        price_id: Price that the client agreed to; any other is refused.
        max_charge_micro: Largest amount that the client agreed to.
        allow_partial: Whether the longest prefix that the budgets admit is billed, instead of all or nothing.
        all_or_nothing: Whether one failed item refuses the whole request, which then bills nothing.
    """

    request_id: str
    endpoint: str
    modality: Modality
    sources: Sequence[ItemSource]
    model: str | None = None
    truncate: bool = False
    item_keys: Sequence[str | None] | None = None
    idempotency_key: str | None = None
    price_id: int | None = None
    max_charge_micro: int | None = None
    allow_partial: bool = False
    all_or_nothing: bool = False

    @property
    def is_named(self) -> bool:
        """Whether the caller named every item, so that sending it again names the same purchases."""
        return self.idempotency_key is not None or (self.item_keys is not None and None not in self.item_keys)


@dataclass(slots=True, eq=False)
class SaleItem:
    """One item of a request, from its name to its outcome: a delivered vector or a failure.

    Attributes:
        item_key: Key under which the item is charged once, for ever.
        prepared: What the model takes; None if it is not to see the item.
        fingerprint: Hash of the content, keyed with the vendor's pepper.
        status: How the vector is delivered; None while it is not.
        vector: `[D]`, known before it is delivered.
        result_sha: Hash of the vector as billed.
        seq: Ledger entry that paid for it.
    """

    item_key: str
    prepared: PreparedItem | None = None
    fingerprint: str = ""
    status: DeliveredStatus | None = None
    vector: Vector | None = None
    result_sha: str = ""
    seq: int = 0
    recompute: SignedRecompute | None = None
    failure: ItemFailure | None = None

    def deliver(self, status: DeliveredStatus, vector: Vector, result_sha: str, seq: int) -> None:
        """Deliver a vector that the ledger entry `seq` paid for."""
        self.status, self.vector, self.result_sha, self.seq, self.failure = status, vector, result_sha, seq, None

    def replay(self, paid: PaidItem) -> None:
        """Deliver a paid item from what is kept; fail if it is past its retention."""
        if paid.vector is not None:
            self.deliver("replayed", paid.vector, paid.result_sha, paid.seq)
            return
        self.fail(
            "result_expired",
            f"ledger entry {paid.seq} paid for it with model `{paid.model_id}`, and its vector is no longer kept; "
            "while the same weights are served, sending the content with its item key computes it again free",
        )

    def fail(self, code: str, detail: str) -> None:
        """Give the item its own error; it is not charged."""
        self.status, self.vector, self.failure = None, None, ItemFailure(code, detail)


@dataclass(slots=True, kw_only=True)
class Sale:
    """A request and what became of each of its items.

    Attributes:
        embedding_dim: Width D of the vectors.
        budgets: Budgets as last read; after the charge, what is left.
        receipt: Receipt of the charge; None when nothing was billed.
        payments: Earlier purchases that paid for free items, by ledger entry.
        new: Items that may be worked on and charged.
        expired: Items paid earlier whose vectors are no longer kept, each with its purchase.
    """

    model_id: str
    embedding_dim: int
    items: Sequence[SaleItem]
    price: Price
    budgets: Budgets
    receipt: Receipt | None = None
    payments: dict[int, RequestRecord] = field(default_factory=dict)
    new: list[SaleItem] = field(default_factory=list)
    expired: list[tuple[SaleItem, PaidItem]] = field(default_factory=list)
    _by_key: dict[str, list[SaleItem]] = field(init=False, default_factory=dict)

    @property
    def billed_units(self) -> int:
        """Units that this request was charged."""
        return self.receipt.entry.units if self.receipt is not None else 0

    @property
    def free_units(self) -> int:
        """Number of items delivered without a charge: paid earlier, or twice in one request."""
        return sum(item.status not in (None, "billed") for item in self.items)

    @property
    def earlier_seqs(self) -> list[int]:
        """Entries before this request's own that paid for its free items, in order."""
        own = 0 if self.receipt is None else self.receipt.entry.seq
        return sorted({item.seq for item in self.items if item.status} - {own})

    @property
    def paid_by(self) -> tuple[RequestRecord, ...]:
        """Earlier purchases that paid for the free items, in order."""
        return tuple(self.payments[seq] for seq in self.earlier_seqs)

    @property
    def failures(self) -> dict[int, ItemFailure]:
        """Failed items by position."""
        return {position: item.failure for position, item in enumerate(self.items) if item.failure is not None}

    def replay(self, paid: Mapping[str, PaidItem], model: ModelInfo) -> None:
        """Deliver what was paid before; the rest is new, or is computed again."""
        for item in self.items:
            if item.failure is None:
                self._by_key.setdefault(item.item_key, []).append(item)
        for item_key, items in self._by_key.items():
            bought = paid.get(item_key)
            same = self._claim(item_key, items[0].fingerprint if bought is None else bought.fingerprint)
            if bought is None:
                self.new.append(same[0])
            elif same and bought.vector is None and _is_product_of(model, bought):
                self.expired.append((same[0], bought))
            else:
                for item in same:
                    item.replay(bought)

    def admit(self, request: SaleRequest) -> None:
        """Keep of the new items what the budgets admit.

        Raises:
            BudgetExhausted: Not all fit; with `allow_partial`, none fits and nothing else can be delivered.
        """
        unread = {item.item_key for item in self.items if item.failure and item.failure.code == BEYOND_BUDGET}
        if not self.new and not unread:
            return
        wanted = len(self.new) + len(unread)
        units = admit(wanted, self.budgets, allow_partial=request.allow_partial, delivers_free=self.delivers_free)
        for item in self.new[units:]:
            self.refuse(item.item_key)
        self.new = self.new[:units]

    @property
    def delivers_free(self) -> bool:
        """Whether anything that is already paid is, or may still be, delivered."""
        return bool(self.expired) or any(item.status for item in self.items)

    def check_whole(self, request: SaleRequest) -> None:
        """Refuse a request that is sold whole or not at all, if an item has failed so far.

        Raises:
            ItemsFailed: Names the failed items.
        """
        if request.all_or_nothing and (failures := self.failures):
            raise ItemsFailed(failures, None if self.receipt is None else self.receipt.entry.seq)

    def refuse(self, item_key: str) -> None:
        """Fail a new item that the budgets do not admit."""
        failure = beyond_budget(self.budgets)
        self.fail(item_key, failure.code, failure.detail)

    def fail(self, item_key: str, code: str, detail: str) -> None:
        """Fail every item of a key that has not failed yet."""
        for item in self._by_key[item_key]:
            if item.failure is None:
                item.fail(code, detail)

    def order(self, caller: ApiKey, request: SaleRequest, model: ModelInfo) -> ChargeOrder | None:
        """Build the charge of the new items that became vectors; None if there are none."""
        items = tuple(
            NewItem(item.item_key, item.fingerprint, result_sha(item.vector), item.vector)
            for item in self.new
            if item.vector is not None
        )
        if not items:
            return None
        return ChargeOrder(
            account_id=caller.account_id,
            api_key_id=caller.id,
            request_id=request.request_id,
            endpoint=request.endpoint,
            modality=request.modality,
            model_id=model.id,
            weights_sha=model.weights_sha,
            precision=model.precision,
            preprocessing_id=model.preprocessing_id,
            price_id=self.price.id,
            items=items,
            allow_partial=request.allow_partial,
        )

    def post(self, charge: Charge, receipt: Receipt | None) -> None:
        """Take in what the ledger committed."""
        self.budgets, self.receipt = charge.budgets, receipt
        for item_key in charge.refused:
            self.refuse(item_key)
        for bought in charge.already_paid:
            for item in self._claim(bought.item_key, bought.fingerprint):
                item.replay(bought)
        if charge.posted is not None:
            vectors = {item.item_key: item.vector for item in self.new if item.vector is not None}
            for sold in charge.posted.items:
                status: DeliveredStatus = "billed"
                for item in self._by_key[sold.item_key]:
                    if item.failure is None:
                        item.deliver(status, vectors[sold.item_key], sold.result_sha, charge.posted.entry.seq)
                        status = "replayed"

    def deliver_recomputed(self, bought: PaidItem, vector: Vector, signed: SignedRecompute) -> None:
        """Deliver, free, what was paid earlier and computed again."""
        for item in self._by_key[bought.item_key]:
            if item.failure is None:
                item.deliver("recomputed", vector, result_sha(vector), bought.seq)
                item.recompute = signed

    def _claim(self, item_key: str, fingerprint: str) -> list[SaleItem]:
        """Fail the items of a key whose content is not the key's; return the others."""
        items = self._by_key[item_key]
        for item in items:
            if item.fingerprint != fingerprint:
                item.fail("item_key_mismatch", "this item key was used for another content; use a new key")
        return [item for item in items if item.fingerprint == fingerprint]


def beyond_budget(budgets: Budgets) -> ItemFailure:
    """Return the failure of a new item that the budgets do not admit."""
    return ItemFailure(BEYOND_BUDGET, f"the {budgets.tighter[0]}'s budget ends before this item; ask for a top-up")


def _is_product_of(model: ModelInfo, bought: PaidItem) -> bool:
    bought_from = (bought.model_id, bought.weights_sha, bought.precision, bought.preprocessing_id)
    return bought_from == (model.id, model.weights_sha, model.precision, model.preprocessing_id)
