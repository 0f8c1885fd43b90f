"""The story of a sale: known items replay, the rest is admitted, encoded, charged in one transaction, and signed.

Nothing is held while the model works: no transaction, no connection, no reservation. Until the charge commits nothing
has happened, and after it every vector can be fetched again free.
"""

from __future__ import annotations

from vl2v_contract.identity import fingerprint
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.encoder import Encoder, ModelInfo
from vl2v_vendor.domain.errors import (
    BudgetExhausted,
    ItemFailure,
    LedgerUnavailable,
    OutcomeUnknown,
    UnknownModel,
    VendorError,
)
from vl2v_vendor.domain.ledger import PaidItem, Vector
from vl2v_vendor.domain.ports import Ledger, Signer
from vl2v_vendor.service.audit import sign_receipt
from vl2v_vendor.service.lanes import EncodingLanes
from vl2v_vendor.service.naming import Line, check_item_key, name_items
from vl2v_vendor.service.outcomes import EmbedOutcome, ItemOutcome, SignedRecompute
from vl2v_vendor.service.payments import Payments, find_payments, with_payments
from vl2v_vendor.service.preparation import Prepared
from vl2v_vendor.service.recompute_allowance import RecomputeAllowance
from vl2v_vendor.service.request_facts import note
from vl2v_vendor.service.sale import EmbedRequest, Sale
from vl2v_vendor.service.stage_clock import timed


class EmbedService:
    """Sells vectors.

    Args:
        ledger: where purchases are known and charged.
        signer: signs receipts.
        encoder: the model on sale.
        lanes: its micro-batches.
        recomputes: what may be computed again free.
        pepper: the vendor's secret behind fingerprints.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        signer: Signer,
        encoder: Encoder,
        lanes: EncodingLanes,
        recomputes: RecomputeAllowance,
        pepper: bytes,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._encoder = encoder
        self._lanes = lanes
        self._recomputes = recomputes
        self._pepper = pepper

    async def embed(self, caller: ApiKey, request: EmbedRequest) -> EmbedOutcome:
        """Sell every item that can be sold; each ends as a vector or as an error of its own.

        Raises:
            VendorError: the whole request is refused, and nothing is billed.
        """
        model = self.check_model(request.model)
        with timed("commit"):
            lines = self._name(caller, request, model)
            item_keys = list(dict.fromkeys(line.item_key for line in lines if isinstance(line, Line)))
            offer = await self._ledger.offer(caller, model.id, request.modality, item_keys)
            sale = Sale(caller, request, model, lines, offer.price)
            sale.replay(offer.paid)
            sale.check_whole()
            sale.admit(offer.budgets)
            # Before the charge: whoever cannot be shown what is free is not charged for the rest.
            payments = await find_payments(caller.account_id, sale.earlier_seqs, self._ledger, self._signer)
            self._recomputes.take(caller.account_id, len(sale.expired))
        try:
            vectors = await self._encode(sale)
        except VendorError:
            self._recomputes.give_back(caller.account_id, len(sale.expired))
            raise
        sale.check_whole()
        with timed("commit"):
            await self._charge(sale, vectors)
            self._recompute(sale, vectors)
            outcome = sale.outcome()
            note(billed_units=outcome.billed_units, free_units=outcome.free_units, failed_items=len(outcome.failures))
            sale.check_whole()
            return await self._show_payments(caller, request, outcome, payments)

    def check_model(self, model: str | None) -> ModelInfo:
        """The model on sale, if it is the one asked for.

        Raises:
            UnknownModel: another one is asked for.
        """
        info = self._encoder.info
        if model not in (None, info.id):
            raise UnknownModel(f"model `{model}` is not on sale here; `{info.id}` is")
        return info

    def _name(self, caller: ApiKey, request: EmbedRequest, model: ModelInfo) -> list[Line | ItemOutcome]:
        """Every item under its item key and fingerprint, or the failure that it already is."""
        item_keys = name_items(
            request.item_keys,
            len(request.items),
            account_id=caller.account_id,
            idempotency_key=request.idempotency_key,
        )
        named = zip(item_keys, request.items, strict=True)
        return [self._line(request, model, item_key, prepared) for item_key, prepared in named]

    def _line(self, request: EmbedRequest, model: ModelInfo, item_key: str, prepared: Prepared) -> Line | ItemOutcome:
        if isinstance(prepared, ItemFailure):
            return ItemOutcome(item_key, prepared)
        try:
            check_item_key(item_key)
        except ItemFailure as failure:
            return ItemOutcome(item_key, failure)
        content = fingerprint(
            self._pepper,
            modality=request.modality,
            model_id=model.id,
            truncate=request.truncate,
            content_sha=prepared.content_sha,
        )
        return Line(item_key, content, prepared)

    async def _encode(self, sale: Sale) -> dict[str, Vector]:
        """Vectors `[D]` by item key; an item that cannot be encoded gets its own error instead."""
        lines = [*sale.admitted, *(line for line, _ in sale.expired)]
        inputs = [line.prepared.model_input for line in lines]
        outcomes = await self._lanes.encode(sale.request.modality, inputs, key=sale.caller.id)
        vectors: dict[str, Vector] = {}
        for line, outcome in zip(lines, outcomes, strict=True):
            if isinstance(outcome, ItemFailure):
                sale.fail(line.item_key, outcome)
            else:
                vectors[line.item_key] = outcome
        return vectors

    async def _charge(self, sale: Sale, vectors: dict[str, Vector]) -> None:
        """Charge the new items in one transaction and sign the entry."""
        order = sale.order(vectors)
        if order is None:
            return
        try:
            charge = await self._ledger.charge(order)
        except BudgetExhausted as refusal:
            sale.refuse_charge(refusal, order)
            return
        except LedgerUnavailable as error:
            if not sale.request.is_named:
                raise OutcomeUnknown from error
            raise
        receipt = sign_receipt(self._signer, charge.posted) if charge.posted is not None else None
        sale.post(charge, receipt, vectors)

    async def _show_payments(
        self, caller: ApiKey, request: EmbedRequest, outcome: EmbedOutcome, payments: Payments
    ) -> EmbedOutcome:
        """The outcome with the receipts of what was paid earlier, or by another request while this one was encoded.

        Reading the latter may fail after this request was charged.
        """
        late = set(outcome.earlier_seqs) - payments.keys()
        try:
            found = await find_payments(caller.account_id, late, self._ledger, self._signer)
            return with_payments(outcome, {**payments, **found})
        except LedgerUnavailable as error:
            if outcome.receipt is not None and not request.is_named:
                raise OutcomeUnknown from error
            raise

    def _recompute(self, sale: Sale, vectors: dict[str, Vector]) -> None:
        """Deliver, free and signed, what was paid earlier and is no longer kept."""
        for line, item in sale.expired:
            vector = vectors.get(line.item_key)
            if vector is not None:
                signed = self._sign_recompute(sale.caller.account_id, item, vector)
                sale.deliver_recomputed(item, vector, signed)

    def _sign_recompute(self, account_id: str, item: PaidItem, vector: Vector) -> SignedRecompute:
        note: dict[str, int | str] = {
            "v": 1,
            "ledger_id": self._ledger.ledger_id,
            "account_id": account_id,
            "item_key": item.item_key,
            "seq": item.seq,
            "recompute_of": item.result_sha,
            "result_sha": result_sha(vector),
            "key_id": self._signer.key_id,
        }
        return SignedRecompute(note, self._signer.sign_recompute(note))
