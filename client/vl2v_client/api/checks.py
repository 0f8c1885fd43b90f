"""Trust nothing: every vector, receipt and price is checked on arrival, before anything is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vl2v_client.api.keyring import Keyring
from vl2v_client.api.problems import AllItemsFailed
from vl2v_client.api.responses import checked_receipt, checked_record
from vl2v_client.core.deliveries import DeliveredItem, Delivery, FailedItem, HalfVector
from vl2v_client.core.errors import VendorChanged, VendorError
from vl2v_client.core.values import PriceTag, TeacherModel
from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import ChargedItem, items_hash
from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt, RequestRecord
from vl2v_contract.vectors import FloatVector, from_base64, result_sha
from vl2v_contract.wire.embeddings import EmbeddingsResponse, ItemResult

NORM_TOLERANCE = 2e-3
"""Rounding a unit vector to float16 moves its norm by less than 2**-11."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one request asked for, to hold the answer against.

    Attributes:
        teacher: None when only paid items were asked for again; then nothing may be billed.
        is_free: Every item was charged before, so that nothing may be billed either.
    """

    item_keys: tuple[str, ...]
    modality: Modality | None = None
    teacher: TeacherModel | None = None
    embedding_dim: int | None = None
    is_free: bool = False

    @property
    def price(self) -> PriceTag:
        """Price agreed to.

        Raises:
            ValueError: The order is a replay, which has no price.
        """
        if self.teacher is None or self.modality is None:
            raise ValueError("a replay has no price")
        return self.teacher.image_price if self.modality == "image" else self.teacher.text_price


def check_answer(
    order: Order, answer: EmbeddingsResponse, keyring: Keyring, raw: Mapping[int, FloatVector] | None = None
) -> Delivery:
    """Check an answer item by item and as a purchase.

    Args:
        order: What was asked.
        answer: Answer as received.
        keyring: The vendor's trusted keys.
        raw: The vectors `[D]` by position, if they came beside the answer and not within its items.

    Raises:
        VendorChanged: A receipt is not signed by a trusted key, or the request's own names another model or price than
            agreed.
        VendorError: Any other check failed; the message says which.
    """
    request_id = answer.request_id
    if [item.index for item in answer.data] != list(range(len(order.item_keys))):
        raise failed_check("it does not have one result per item, in order", request_id)
    delivered, failed = [], []
    for key, item in zip(order.item_keys, answer.data, strict=True):
        if item.item_key != key:
            raise failed_check(f"item {item.index} came back under another item key", request_id)
        if item.status == "failed":
            failed.append(_failed(key, item, request_id))
        else:
            vector = _vector(item, answer, order, raw)
            delivered.append(_delivered(key, item, vector, answer.request_id, keyring))
    receipt = None if answer.receipt is None else checked_receipt(answer.receipt)
    _check_purchase(order, answer, receipt, delivered, keyring)
    records = [_signed_record(checked_record(paid), keyring) for paid in answer.paid_by]
    receipts = _receipts_of(delivered, receipt, records, request_id)
    keys = (answer.budget.remaining_units, answer.budget.key_remaining_units)
    remaining = min(units for units in keys if units is not None)
    return Delivery(tuple(delivered), tuple(failed), receipts, receipt, remaining)


def all_failed(order: Order, refusal: AllItemsFailed) -> Delivery:
    """Return what a refusal that names an error for every item delivers: nothing, and why.

    Raises:
        VendorError: It does not name every item.
    """
    errors = {item.index: item for item in refusal.items}
    if errors.keys() != set(range(len(order.item_keys))):
        raise failed_check("every item failed, but not every item says why", refusal.request_id)
    failed = (FailedItem(key, str(errors[i].code), errors[i].detail) for i, key in enumerate(order.item_keys))
    return Delivery((), tuple(failed), (), None, None)


def failed_check(what: str, request_id: str | None) -> VendorError:
    """Return the error for an answer that cannot be accepted."""
    return VendorError(_failed_message(what), request_id=request_id)


def _failed_message(what: str) -> str:
    return f"the vendor's answer fails a check: {what}; it was not stored. Run `vl2v-client audit` and ask the vendor"


def _failed(key: str, item: ItemResult, request_id: str) -> FailedItem:
    if item.error is None:
        raise failed_check(f"item {item.index} failed without saying why", request_id)
    return FailedItem(key, str(item.error.code), item.error.detail)


def _delivered(key: str, item: ItemResult, vector: HalfVector, request_id: str, keyring: Keyring) -> DeliveredItem:
    if item.seq is None or not 1 <= item.seq <= MAX_INTEGER or item.result_sha is None or item.status == "failed":
        raise failed_check(f"item {item.index} names no ledger entry or no result hash", request_id)
    if item.status == "recomputed":
        return _recomputed(key, item, vector, request_id, keyring)
    if result_sha(vector) != item.result_sha:
        raise failed_check(f"the vector of item {item.index} is not the one that was billed", request_id)
    return DeliveredItem(key, item.status, vector, item.result_sha, item.seq)


def _recomputed(key: str, item: ItemResult, vector: HalfVector, request_id: str, keyring: Keyring) -> DeliveredItem:
    signed = item.recompute
    if signed is None or not keyring.signed_recompute(asdict(signed.note), signed.signature):
        raise failed_check(f"item {item.index} was recomputed without a signed note", request_id)
    note = signed.note
    if (note.item_key, note.seq, note.result_sha) != (key, item.seq, result_sha(vector)):
        raise failed_check(f"the note on recomputed item {item.index} is about something else", request_id)
    return DeliveredItem(key, "recomputed", vector, note.recompute_of, note.seq, signed.to_json())


def _vector(
    item: ItemResult, answer: EmbeddingsResponse, order: Order, raw: Mapping[int, FloatVector] | None
) -> HalfVector:
    wanted = order.embedding_dim or answer.embedding_dim
    has_form = raw is not None or isinstance(item.embedding, str)
    if answer.embedding_dim != wanted or answer.dtype != "float16" or not has_form:
        raise failed_check(f"vectors are not {wanted} float16 numbers, raw or in base64", answer.request_id)
    try:
        sent = raw[item.index] if raw is not None else from_base64(str(item.embedding), "float16", wanted)
    except ValueError as error:
        raise failed_check(f"the vector of item {item.index} is damaged: {error}", answer.request_id) from error
    vector: HalfVector = sent.astype(np.float16, copy=False)
    if not is_unit(vector):
        raise failed_check(f"the vector of item {item.index} is not finite and of unit length", answer.request_id)
    return vector


def is_unit(vector: HalfVector) -> bool:
    """Return whether a `[D]` float16 vector is finite and of unit norm, within what rounding to float16 allows."""
    wide = vector.astype(np.float64)
    return bool(np.isfinite(wide).all()) and abs(float(np.linalg.norm(wide)) - 1.0) <= NORM_TOLERANCE


def _check_purchase(
    order: Order,
    answer: EmbeddingsResponse,
    receipt: Receipt | None,
    delivered: Sequence[DeliveredItem],
    keyring: Keyring,
) -> None:
    """Hold the receipt against the items that the answer calls billed."""
    request_id = answer.request_id
    billed = [item for item in delivered if item.status == "billed"]
    if answer.usage.billed_units != len(billed):
        raise failed_check(f"{len(billed)} items were billed, but {answer.usage.billed_units} units", request_id)
    if receipt is None:
        if billed:
            raise failed_check("items were billed without a receipt", request_id)
        return
    if order.teacher is None or order.is_free or not billed:
        raise failed_check("a request that should be free came with a charge", request_id)
    _check_signed(receipt, keyring, request_id)
    _check_items(receipt, [ChargedItem(item.item_key, item.result_sha, 1) for item in billed])
    _check_terms(order, order.teacher, receipt)
    if any(item.seq != receipt.entry.seq for item in billed) or receipt.entry.request_id != request_id:
        raise failed_check("the receipt is for another request", request_id)
    if answer.usage.amount_micro != receipt.entry.amount_micro:
        raise failed_check("usage and receipt name different amounts", request_id)


def _check_signed(receipt: Receipt, keyring: Keyring, request_id: str) -> None:
    if receipt.entry.hash() != receipt.entry_hash:
        raise failed_check("the receipt's hash is not that of its entry", request_id)
    if not keyring.signed_receipt(receipt):
        what = f"the receipt is not signed by a trusted key of vendor {keyring.ledger_id}"
        raise VendorChanged(_failed_message(what), request_id=request_id)


def _check_items(receipt: Receipt, items: Sequence[ChargedItem]) -> None:
    entry = receipt.entry
    if entry.items_hash != items_hash(items):
        raise failed_check("the receipt covers other items than those delivered", entry.request_id)
    if entry.units != len(items) or any(item.units != 1 for item in items):
        raise failed_check(f"{len(items)} items cost {entry.units} units, not one each", entry.request_id)
    if entry.amount_micro != entry.units * entry.unit_price_micro:
        raise failed_check("the receipt's amount is not its units times its price", entry.request_id)


def _check_terms(order: Order, teacher: TeacherModel, receipt: Receipt) -> None:
    entry, price = receipt.entry, order.price
    terms = {
        "kind": (entry.kind, "charge"),
        "ledger": (entry.ledger_id, teacher.ledger_id),
        "modality": (entry.modality, order.modality),
        "model": (entry.model_id, teacher.id),
        "weights": (entry.weights_sha, teacher.weights_sha),
        "precision": (entry.precision, teacher.precision),
        "preprocessing": (entry.preprocessing_id, teacher.preprocessing_id),
        "price id": (entry.price_id, price.price_id),
        "unit price": (entry.unit_price_micro, price.unit_price_micro),
        "currency": (entry.currency, price.currency),
    }
    for name, (told, agreed) in terms.items():
        if told != agreed:
            what = f"the receipt's {name} is {told}, not {agreed} as agreed"
            raise VendorChanged(_failed_message(what), request_id=entry.request_id)


def _signed_record(record: RequestRecord, keyring: Keyring) -> RequestRecord:
    """Return an earlier purchase that is signed and covers its items."""
    _check_signed(record.receipt, keyring, record.receipt.entry.request_id)
    _check_items(record.receipt, record.items)
    return record


def _receipts_of(
    delivered: Sequence[DeliveredItem], own: Receipt | None, earlier: Iterable[RequestRecord], request_id: str
) -> tuple[Receipt, ...]:
    """Return the receipts that paid for what was delivered; every free item must be covered by one of them."""
    paid = {(item.seq, item.item_key, item.result_sha) for item in delivered if item.status == "billed"}
    receipts = {} if own is None else {own.entry.seq: own}
    for record in earlier:
        seq = record.receipt.entry.seq
        if seq in receipts:
            raise failed_check(f"it shows two receipts for entry {seq}", request_id)
        receipts[seq] = record.receipt
        paid |= {(seq, item.item_key, item.result_sha) for item in record.items}
    for item in delivered:
        if (item.seq, item.item_key, item.result_sha) not in paid:
            raise failed_check(f"no receipt shows that entry {item.seq} paid for item {item.item_key[:12]}", request_id)
    used = {item.seq for item in delivered}
    return tuple(receipt for seq, receipt in receipts.items() if seq in used)
