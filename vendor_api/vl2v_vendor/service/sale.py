"""One request on its way from items to verdicts, as bookkeeping without I/O.

An item key may occur more than once in a request; it is bought once, and its other lines are replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vl2v_contract.identity import Modality
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import ApiKey, Budgets
from vl2v_vendor.domain.admission import exhaustion
from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import BudgetExhausted, ItemFailure, ItemsFailed
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem, PaidItem, Price, Vector
from vl2v_vendor.service.admission import admit, check_price
from vl2v_vendor.service.audit import SignedReceipt
from vl2v_vendor.service.naming import Line
from vl2v_vendor.service.outcomes import Delivered, EmbedOutcome, ItemOutcome, SignedRecompute, Verdict
from vl2v_vendor.service.preparation import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """What one caller wants, its items already prepared.

    Attributes:
        endpoint: the path, as the ledger entry names it.
        model: a model id; None is the one on sale.
        item_keys: one per item, or None for keys of the vendor's making.
        idempotency_key: the header, from which missing item keys are made.
        price_id: refuse if this price is no longer in force.
        max_charge_micro: refuse if it would cost more.
        allow_partial: bill the longest prefix that the budgets admit, rather than all or nothing.
        all_or_nothing: refuse the request, and bill nothing, if any item fails.
    """

    request_id: str
    endpoint: str
    modality: Modality
    items: Sequence[Prepared]
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


class Sale:
    """The state of one request.

    Attributes:
        admitted: new items that may be worked on.
        expired: items paid earlier whose vectors are no longer kept, with the line to compute each from.
        earlier_seqs: the entries that paid for what is delivered free, as far as it is known before the charge.
    """

    def __init__(
        self, caller: ApiKey, request: EmbedRequest, model: ModelInfo, lines: Sequence[Line | ItemOutcome], price: Price
    ) -> None:
        self.caller = caller
        self.request = request
        self.model = model
        self.price = price
        self.admitted: list[Line] = []
        self.expired: list[tuple[Line, PaidItem]] = []
        self.earlier_seqs: set[int] = set()
        self._lines = lines
        self._by_key: dict[str, list[Line]] = {}
        for line in lines:
            if isinstance(line, Line):
                self._by_key.setdefault(line.item_key, []).append(line)
        self._contents: dict[str, str] = {}  # what each item key stands for
        self._verdicts: dict[str, Verdict] = {}
        self._receipt: SignedReceipt | None = None
        self._budgets: Budgets | None = None

    def replay(self, paid: Mapping[str, PaidItem]) -> None:
        """Settle what was paid before; the rest is wanted new, or computed again."""
        for item_key, lines in self._by_key.items():
            item = paid.get(item_key)
            if item is None:
                self._contents[item_key] = lines[0].fingerprint
                self.admitted.append(lines[0])
                continue
            self._contents[item_key] = item.fingerprint
            source = next((line for line in lines if line.fingerprint == item.fingerprint), None)
            if item.vector is None and source is not None and self._can_recompute(item):
                self.expired.append((source, item))
                self.earlier_seqs.add(item.seq)
            else:
                self._verdicts[item_key] = verdict = recall(item)
                self.earlier_seqs.update([item.seq] if isinstance(verdict, Delivered) else [])

    def admit(self, budgets: Budgets) -> None:
        """Keep of the new items what the budgets admit, at the price that the client agreed to.

        Raises:
            BudgetExhausted: not all fit; with `allow_partial`, none fits and nothing else can be delivered.
            PriceChanged: the client pinned another price.
        """
        self._budgets = budgets
        wanted = self.admitted
        if not wanted:
            return
        request = self.request
        units = admit(len(wanted), budgets, allow_partial=request.allow_partial)
        if units == 0 and not self._delivers_anything():
            raise exhaustion(len(wanted), budgets)
        check_price(self.price, units, price_id=request.price_id, max_charge_micro=request.max_charge_micro)
        self.admitted = wanted[:units]
        self.refuse([line.item_key for line in wanted[units:]])

    def check_whole(self) -> None:
        """Refuse a request that is sold whole or not at all, if an item has failed so far.

        Raises:
            ItemsFailed: names them.
        """
        if not self.request.all_or_nothing:
            return
        verdicts = ((position, self._verdict(line)) for position, line in enumerate(self._lines))
        failures = {position: verdict for position, verdict in verdicts if isinstance(verdict, ItemFailure)}
        if failures:
            raise ItemsFailed(failures, None if self._receipt is None else self._receipt.entry.seq)

    def fail(self, item_key: str, failure: ItemFailure) -> None:
        """Give a purchase its own error; it is not charged."""
        self._verdicts[item_key] = failure

    def refuse(self, item_keys: Sequence[str]) -> None:
        """Mark purchases that the budgets do not admit."""
        if item_keys and self._budgets is not None:
            name = exhaustion(len(item_keys), self._budgets).budget
            failure = ItemFailure("budget_exhausted", f"the {name}'s budget ends before this item; ask for a top-up")
            for item_key in item_keys:
                self.fail(item_key, failure)

    def refuse_charge(self, refusal: BudgetExhausted, order: ChargeOrder) -> None:
        """Turn the ledger's refusal into item errors if something else is delivered, else refuse the request."""
        if not (order.allow_partial and self._delivers_anything()):
            raise refusal
        self.refuse([item.item_key for item in order.items])

    def order(self, vectors: Mapping[str, Vector]) -> ChargeOrder | None:
        """The charge of the admitted items that became vectors; None if there are none."""
        items = tuple(
            NewItem(line.item_key, line.fingerprint, result_sha(vectors[line.item_key]), vectors[line.item_key])
            for line in self.admitted
            if line.item_key in vectors
        )
        if not items:
            return None
        return ChargeOrder(
            account_id=self.caller.account_id,
            api_key_id=self.caller.id,
            request_id=self.request.request_id,
            endpoint=self.request.endpoint,
            modality=self.request.modality,
            model_id=self.model.id,
            weights_sha=self.model.weights_sha,
            precision=self.model.precision,
            preprocessing_id=self.model.preprocessing_id,
            price_id=self.price.id,
            items=items,
            allow_partial=self.request.allow_partial,
        )

    def post(self, charge: Charge, receipt: SignedReceipt | None, vectors: Mapping[str, Vector]) -> None:
        """Take in what the ledger committed."""
        self._budgets = charge.budgets
        self._receipt = receipt
        self.refuse(charge.refused)
        for item in charge.already_paid:
            self._contents[item.item_key] = item.fingerprint
            self._verdicts[item.item_key] = recall(item)
        if charge.posted is not None:
            seq = charge.posted.entry.seq
            for sold in charge.posted.items:
                self._verdicts[sold.item_key] = Delivered("billed", vectors[sold.item_key], sold.result_sha, seq)

    def deliver_recomputed(self, item: PaidItem, vector: Vector, signed: SignedRecompute) -> None:
        """Deliver, free, what was paid earlier and computed again."""
        self._verdicts[item.item_key] = Delivered("recomputed", vector, result_sha(vector), item.seq, signed)

    def outcome(self) -> EmbedOutcome:
        """The answer, item by item."""
        if self._budgets is None:
            raise RuntimeError("a sale has no outcome before it is admitted")
        return EmbedOutcome(
            model_id=self.model.id,
            embedding_dim=self.model.embedding_dim,
            items=tuple(line if isinstance(line, ItemOutcome) else self._settle(line) for line in self._lines),
            receipt=self._receipt,
            price=self.price,
            budgets=self._budgets,
        )

    def _settle(self, line: Line) -> ItemOutcome:
        verdict = self._verdict(line)
        if verdict is None:
            raise RuntimeError("a sale has no outcome before every item has its verdict")
        is_repeated = line is not self._by_key[line.item_key][0]
        if is_repeated and isinstance(verdict, Delivered) and verdict.status == "billed":
            verdict = replace(verdict, status="replayed")
        return ItemOutcome(line.item_key, verdict, line.prepared.tokens, line.prepared.truncated)

    def _verdict(self, line: Line | ItemOutcome) -> Verdict | None:
        """What has become of a line; None while it is open."""
        if isinstance(line, ItemOutcome):
            return line.verdict
        if line.fingerprint != self._contents[line.item_key]:
            return ItemFailure("item_key_mismatch", "this item key was used for another content; use a new key")
        return self._verdicts.get(line.item_key)

    def _delivers_anything(self) -> bool:
        return bool(self.expired) or any(isinstance(self._verdict(line), Delivered) for line in self._lines)

    def _can_recompute(self, item: PaidItem) -> bool:
        paid_with = (item.model_id, item.weights_sha, item.precision, item.preprocessing_id)
        model = self.model
        return paid_with == (model.id, model.weights_sha, model.precision, model.preprocessing_id)


def recall(item: PaidItem) -> Verdict:
    """Deliver a paid item from what is kept."""
    if item.vector is None:
        return ItemFailure(
            "result_expired",
            f"ledger entry {item.seq} paid for it with model `{item.model_id}`, and its vector is no longer kept; "
            "while the same weights are served, sending the content with its item key computes it again free",
        )
    return Delivered("replayed", item.vector, item.result_sha, item.seq)
