"""The sale of vectors, from an authenticated request to a signed receipt.

Nothing is held while the model works: no transaction, no connection, no reservation of money. Until the charge commits
nothing has happened, and after it every vector can be fetched again free.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from vl2v_contract.identity import fingerprint
from vl2v_contract.records import RecomputeNote, RequestRecord, SignedRecompute, StatementEntry
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.encoder import Encoder, Limits, ModelInfo
from vl2v_vendor.domain.errors import (
    BudgetExhausted,
    ItemFailure,
    LedgerUnavailable,
    OutcomeUnknown,
    RateLimited,
    UnknownModel,
    VendorError,
)
from vl2v_vendor.domain.ledger import Offer, PaidItem
from vl2v_vendor.domain.ports import Clock, Ledger
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.observe.request_trace import note, timed
from vl2v_vendor.service.admission import admit_unseen, read_expired, read_items
from vl2v_vendor.service.audit import sign_receipt
from vl2v_vendor.service.preparation import Preparation, check_item_key, name_items
from vl2v_vendor.service.sale import Sale, SaleItem, SaleRequest

_MINUTE_MICRO = 60_000_000


@dataclass(eq=False, slots=True)
class RecomputeAllowance:
    """How much each account may have computed again free of charge: a token bucket of its own.

    Kept in memory: it guards the model's time, not money, so a restart may forget it and each replica has its own. A
    bucket holds one minute's worth.
    """

    clock: Clock
    items_per_minute: int
    _buckets: dict[str, tuple[float, int]] = field(default_factory=dict)

    def take(self, account_id: str, items: int) -> None:
        """Take `items` out of the account's bucket.

        Raises:
            RateLimited: The bucket does not hold them; says when it will. Nothing is taken.
        """
        now, rate = self.clock.now(), self.items_per_minute
        left, filled_at = self._buckets.get(account_id, (rate, now))
        left = min(rate, left + max(0, now - filled_at) * rate / _MINUTE_MICRO)
        # More than a full bucket holds could never be served, so that much empties it.
        cost = min(items, rate)
        self._buckets[account_id] = (left if cost > left else left - cost), now
        if cost > left:
            raise RateLimited(
                f"{items} vectors are past their retention, and this account may have {rate} a minute computed again "
                "free; send the same items later, or fewer at a time",
                retry_after_seconds=int((cost - left) * 60 / rate) + 1,
            )

    def give_back(self, account_id: str, items: int) -> None:
        """Put back what was taken for items that the vendor could not compute."""
        left, filled_at = self._buckets.get(account_id, (self.items_per_minute, self.clock.now()))
        self._buckets[account_id] = min(self.items_per_minute, left + items), filled_at


@dataclass(eq=False, slots=True, kw_only=True)
class Seller:
    """Sells vectors, and delivers paid ones again. `pepper` is the secret key of the fingerprints of what was sent."""

    ledger: Ledger
    signer: SecretSigner
    encoder: Encoder
    lanes: EncodingLanes
    preparation: Preparation
    recomputes: RecomputeAllowance
    limits: Limits
    pepper: bytes = field(repr=False)

    async def sell(self, caller: ApiKey, request: SaleRequest) -> Sale:
        """Sell every item that can be sold; each ends as a vector or as an error of its own.

        Raises:
            VendorError: The whole request is refused, and nothing is billed.
        """
        model, count = self.check_model(request.model), len(request.sources)
        self.limits.check_items(count)
        keys = name_items(
            request.item_keys, count, account_id=caller.account_id, idempotency_key=request.idempotency_key
        )
        with timed("commit"):
            valid = [key for key in dict.fromkeys(keys) if check_item_key(key) is None]
            offer = await self.ledger.offer(caller, model.id, request.modality, valid)
        room = admit_unseen(request, offer, valid)
        expired = sum(paid.vector is None for paid in offer.paid.values())
        with self.lanes[request.modality].reserve(room + expired, key=caller.account_id):
            items = await read_items(
                self.preparation,
                request,
                keys,
                offer,
                room,
                lambda content: self._fingerprint(request, model, content),
                key=caller.account_id,
            )
            with timed("commit"):
                sale = await self._admit(caller, request, model, offer, items)
            await read_expired(self.preparation, request, sale, key=caller.account_id)
        await self._encode(caller, request, sale)
        sale.check_whole(request)
        with timed("commit"):
            await self._charge(caller, request, model, sale)
            note(
                modality=request.modality,
                billed_units=sale.billed_units,
                free_units=sale.free_units,
                failed_items=len(sale.failures),
            )
            sale.check_whole(request)
            try:
                await self._find_payments(caller, sale, sale.earlier_seqs)  # of what others bought meanwhile
            except LedgerUnavailable as error:
                if sale.receipt is not None and not request.is_named:
                    raise OutcomeUnknown from error
                raise
        return sale

    async def replay(self, caller: ApiKey, item_keys: Sequence[str]) -> Sale:
        """Deliver paid items again, free, while they are kept; the model is not used.

        An answer holds the vectors of one model: that of the first item found, whatever is on sale now.

        Raises:
            TooManyItems: There are more keys than one request may have.
        """
        self.limits.check_items(len(item_keys))
        with timed("commit"):
            valid = [key for key in dict.fromkeys(item_keys) if check_item_key(key) is None]
            info = self.encoder.info
            offer = await self.ledger.offer(caller, info.id, "image", valid)
            paid = offer.paid
            found = next((paid[key] for key in item_keys if key in paid and paid[key].vector is not None), None)
            model_id, dimension = info.id, info.embedding_dim
            if found is not None and found.vector is not None:
                model_id, dimension = found.model_id, len(found.vector)
            sale = Sale(
                model_id=model_id,
                embedding_dim=dimension,
                items=[_replayed(key, paid.get(key), model_id) for key in item_keys],
                price=offer.price,
                budgets=offer.budgets,
            )
            note(free_units=sale.free_units, failed_items=len(sale.failures))
            await self._find_payments(caller, sale, sale.earlier_seqs)
        return sale

    def check_model(self, model: str | None) -> ModelInfo:
        """Return the model on sale, if it is the one asked for.

        Raises:
            UnknownModel: Another model is asked for.
        """
        info = self.encoder.info
        if model not in (None, info.id):
            raise UnknownModel(f"model `{model}` is not on sale here; `{info.id}` is")
        return info

    async def _admit(
        self,
        caller: ApiKey,
        request: SaleRequest,
        model: ModelInfo,
        offer: Offer,
        items: Sequence[SaleItem],
    ) -> Sale:
        """Replay what is paid and admit the rest.

        The records of what was paid earlier are read before the charge: whoever cannot be shown what is free is not
        charged for the rest.
        """
        sale = Sale(
            model_id=model.id, embedding_dim=model.embedding_dim, items=items, price=offer.price, budgets=offer.budgets
        )
        sale.replay(offer.paid, model)
        sale.check_whole(request)
        sale.admit(request)
        await self._find_payments(caller, sale, [*sale.earlier_seqs, *(paid.seq for _, paid in sale.expired)])
        if sale.expired:
            self.recomputes.take(caller.account_id, len(sale.expired))
        return sale

    def _fingerprint(self, request: SaleRequest, model: ModelInfo, content_sha: str) -> str:
        return fingerprint(
            self.pepper,
            modality=request.modality,
            model_id=model.id,
            truncate=request.truncate,
            content_sha=content_sha,
        )

    async def _encode(self, caller: ApiKey, request: SaleRequest, sale: Sale) -> None:
        """Encode the admitted and the expired items; one that cannot be encoded gets its own error."""
        items = [*sale.new, *(item for item, _ in sale.expired)]
        inputs = [item.prepared.model_input for item in items if item.prepared is not None]
        try:
            outcomes = await self.lanes.encode(request.modality, inputs, key=caller.account_id)
        except VendorError:
            self.recomputes.give_back(caller.account_id, len(sale.expired))
            raise
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, ItemFailure):
                sale.fail(item.item_key, outcome.code, outcome.detail)
            else:
                item.vector = outcome

    async def _charge(self, caller: ApiKey, request: SaleRequest, model: ModelInfo, sale: Sale) -> None:
        """Charge the new items in one transaction, sign the entry, and deliver what was computed again free."""
        order = sale.order(caller, request, model)
        if order is not None:
            try:
                charge = await self.ledger.charge(order)
            except BudgetExhausted:
                if not (request.allow_partial and sale.delivers_free):
                    raise
                for item in sale.new:
                    sale.refuse(item.item_key)
            except LedgerUnavailable as error:
                if not request.is_named:
                    raise OutcomeUnknown from error
                raise
            else:
                sale.post(charge, sign_receipt(self.signer, charge.posted) if charge.posted is not None else None)
        for item, paid in sale.expired:
            if item.vector is not None:
                recompute = RecomputeNote(
                    ledger_id=self.ledger.ledger_id,
                    account_id=caller.account_id,
                    item_key=paid.item_key,
                    seq=paid.seq,
                    recompute_of=paid.result_sha,
                    result_sha=result_sha(item.vector),
                    key_id=self.signer.key_id,
                )
                signature = self.signer.sign_recompute(asdict(recompute))
                sale.deliver_recomputed(paid, item.vector, SignedRecompute(recompute, signature))

    async def _find_payments(self, caller: ApiKey, sale: Sale, seqs: Iterable[int]) -> None:
        """Read the records of the account's purchases that the sale does not have yet."""
        if missing := set(seqs) - sale.payments.keys():
            found = await self.ledger.find_entries(caller.account_id, sorted(missing))
            sale.payments |= await asyncio.to_thread(self._records, found)  # each is signed

    def _records(self, found: Iterable[StatementEntry]) -> dict[int, RequestRecord]:
        return {one.entry.seq: RequestRecord(sign_receipt(self.signer, one), one.items) for one in found}


def _replayed(item_key: str, paid: PaidItem | None, model_id: str) -> SaleItem:
    item = SaleItem(item_key, failure=check_item_key(item_key))
    if item.failure is not None:
        return item
    if paid is None:
        item.fail("unknown_item", "this account has not paid for this item key; send the item itself")
    elif paid.vector is not None and paid.model_id != model_id:
        item.fail(
            "unknown_model", f"paid with model `{paid.model_id}`, and this answer is for `{model_id}`; ask for it apart"
        )
    else:
        item.replay(paid)
    return item
