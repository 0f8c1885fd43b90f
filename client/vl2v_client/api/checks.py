"""Trust nothing: every vector, receipt and price is checked on arrival, before anything is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vl2v_client.api.keyring import Keyring
from vl2v_client.api.responses import AllItemsFailed, check_numbers
from vl2v_client.core.deliveries import DeliveredItem, Delivery, FailedItem, HalfVector
from vl2v_client.core.errors import VendorChanged, VendorError
from vl2v_client.core.values import PriceTag, TeacherModel
from vl2v_contract.chain import ChargedItem, items_hash
from vl2v_contract.identity import MAX_INTEGER, Modality
from vl2v_contract.records import Receipt, recompute_message
from vl2v_contract.vectors import FloatVector, from_base64, result_sha
from vl2v_contract.wire.embeddings import EmbeddingsResponse, ItemResult


@dataclass(frozen=True, slots=True)
class Terms:
    """What a purchase was agreed to be of and to cost, to hold its receipt against.

    Attributes:
        is_free: Every item was charged before, so that nothing may be billed.
    """

    modality: Modality
    teacher: TeacherModel
    is_free: bool

    @property
    def price(self) -> PriceTag:
        """Price agreed to."""
        return self.teacher.image_price if self.modality == "image" else self.teacher.text_price

    def options(self, items: int) -> dict[str, Any]:
        """Return the request's fields that hold the vendor to model and price."""
        most = 0 if self.is_free else items * self.price.unit_price_micro
        pins = {"price_id": self.price.price_id, "max_charge_micro": most}
        return {"model": self.teacher.id, "dtype": "float16", "allow_partial": True, **pins}


def check_answer(
    item_keys: Sequence[str],
    terms: Terms | None,
    answer: EmbeddingsResponse,
    keyring: Keyring,
    raw: Mapping[int, FloatVector] | None,
) -> Delivery:
    """Check an answer item by item and as a purchase.

    Args:
        item_keys: What was asked for, in order.
        terms: What was agreed to; None when only paid items were asked for again, so that nothing may be billed.
        answer: What came.
        keyring: The vendor's trusted keys.
        raw: The vectors `[D]` by position, if they came beside the answer and not within its items.

    Raises:
        VendorChanged: A receipt is not signed by a trusted key, or the request's own names another model or price than
            agreed.
        VendorError: Any other check failed; the message says which.
    """
    request_id = answer.request_id
    is_whole = [item.index for item in answer.data] == list(range(len(item_keys)))
    _refuse({"it does not have one result per item, in order": not is_whole}, request_id)
    delivered, failed = [], []
    for key, item in zip(item_keys, answer.data, strict=True):
        _refuse({f"item {item.index} came back under another item key": item.item_key != key}, request_id)
        if item.status != "failed":
            delivered.append(_delivered(key, item, _vector(item, answer, terms, raw), request_id, keyring))
        elif item.error is None:
            raise _failed_check(f"item {item.index} failed without saying why", request_id)
        else:
            failed.append(FailedItem(key, str(item.error.code), item.error.detail))
    _check_purchase(terms, answer, [item for item in delivered if item.status == "billed"], keyring)
    for paid in answer.paid_by:
        _check_receipt(paid.receipt, paid.items, keyring, paid.receipt.entry.request_id)
    return Delivery(tuple(delivered), tuple(failed), _receipts_of(delivered, answer), answer.receipt)


def all_failed(item_keys: Sequence[str], refusal: AllItemsFailed) -> Delivery:
    """Return what a refusal that names an error for every item delivers: nothing, and why.

    Raises:
        VendorError: It does not name every item.
    """
    errors = {item.index: item for item in refusal.items}
    is_whole = errors.keys() == set(range(len(item_keys)))
    _refuse({"every item failed, but not every item says why": not is_whole}, refusal.request_id)
    failed = (FailedItem(key, str(errors[i].code), errors[i].detail) for i, key in enumerate(item_keys))
    return Delivery(failed=tuple(failed))


def is_unit(vector: HalfVector) -> bool:
    """Return whether a `[D]` float16 vector is finite and of unit norm, within what rounding to float16 allows."""
    wide = vector.astype(np.float64)
    # the rounding moves the norm by less than 2**-11
    return bool(np.isfinite(wide).all()) and abs(float(np.linalg.norm(wide)) - 1.0) <= 2e-3


def _refuse(faults: Mapping[str, bool], request_id: str | None) -> None:
    """Refuse the answer for the first fault that it has."""
    for what, is_so in faults.items():
        if is_so:
            raise _failed_check(what, request_id)


def _failed_check(what: str, request_id: str | None, kind: type[VendorError] = VendorError) -> VendorError:
    remedy = "it was not stored. Run `vl2v-client audit` and ask the vendor"
    return kind(f"the vendor's answer fails a check: {what}; {remedy}", request_id=request_id)


def _delivered(key: str, item: ItemResult, vector: HalfVector, request_id: str, keyring: Keyring) -> DeliveredItem:
    if item.seq is None or not 1 <= item.seq <= MAX_INTEGER or item.result_sha is None or item.status == "failed":
        raise _failed_check(f"item {item.index} names no ledger entry or no result hash", request_id)
    sha = result_sha(vector)
    if item.status != "recomputed":
        _refuse({f"the vector of item {item.index} is not the one that was billed": sha != item.result_sha}, request_id)
        return DeliveredItem(key, item.status, vector, item.result_sha, item.seq)
    signed = item.recompute
    if signed is None or not keyring.verifies(
        signed.note.key_id, recompute_message(asdict(signed.note)), signed.signature
    ):
        raise _failed_check(f"item {item.index} was recomputed without a signed note", request_id)
    note = signed.note
    is_another = (note.item_key, note.seq, note.result_sha) != (key, item.seq, sha)
    _refuse({f"the note on recomputed item {item.index} is about something else": is_another}, request_id)
    return DeliveredItem(key, "recomputed", vector, note.recompute_of, note.seq, signed.to_json())


def _vector(
    item: ItemResult, answer: EmbeddingsResponse, terms: Terms | None, raw: Mapping[int, FloatVector] | None
) -> HalfVector:
    wanted = answer.embedding_dim if terms is None else terms.teacher.embedding_dim
    has_form = raw is not None or isinstance(item.embedding, str)
    is_readable = answer.embedding_dim == wanted and answer.dtype == "float16" and has_form
    _refuse({f"vectors are not {wanted} float16 numbers, raw or in base64": not is_readable}, answer.request_id)
    try:
        sent = raw[item.index] if raw is not None else from_base64(str(item.embedding), "float16", wanted)
    except ValueError as error:
        raise _failed_check(f"the vector of item {item.index} is damaged: {error}", answer.request_id) from error
    vector: HalfVector = sent.astype(np.float16, copy=False)
    what = f"the vector of item {item.index} is not finite and of unit length"
    _refuse({what: not is_unit(vector)}, answer.request_id)
    return vector


def _check_purchase(
    terms: Terms | None, answer: EmbeddingsResponse, billed: Sequence[DeliveredItem], keyring: Keyring
) -> None:
    """Hold the receipt against the items that the answer calls billed."""
    request_id, receipt, units = answer.request_id, answer.receipt, answer.usage.billed_units
    _refuse({f"{len(billed)} items were billed, but {units} units": units != len(billed)}, request_id)
    if receipt is None:
        _refuse({"items were billed without a receipt": bool(billed)}, request_id)
        return
    if terms is None or terms.is_free or not billed:
        raise _failed_check("a request that should be free came with a charge", request_id)
    items = [ChargedItem(item.item_key, item.result_sha, 1) for item in billed]
    _check_receipt(receipt, items, keyring, request_id)
    _check_terms(terms, receipt)
    is_its_own = receipt.entry.request_id == request_id and all(item.seq == receipt.entry.seq for item in billed)
    faults = {
        "the receipt is for another request": not is_its_own,
        "usage and receipt name different amounts": answer.usage.amount_micro != receipt.entry.amount_micro,
    }
    _refuse(faults, request_id)


def _check_receipt(receipt: Receipt, items: Sequence[ChargedItem], keyring: Keyring, request_id: str) -> None:
    """Check that a receipt is signed, covers these items, and charges one unit for each."""
    entry = receipt.entry
    check_numbers(entry, items)
    _refuse({"the receipt's hash is not that of its entry": entry.hash() != receipt.entry_hash}, request_id)
    if not keyring.signed_receipt(receipt):
        what = f"the receipt is not signed by a trusted key of vendor {keyring.ledger_id}"
        raise _failed_check(what, request_id, VendorChanged)
    is_one_each = entry.units == len(items) and all(item.units == 1 for item in items)
    is_product = entry.amount_micro == entry.units * entry.unit_price_micro
    faults = {
        "the receipt covers other items than those delivered": entry.items_hash != items_hash(items),
        f"{len(items)} items cost {entry.units} units, not one each": not is_one_each,
        "the receipt's amount is not its units times its price": not is_product,
    }
    _refuse(faults, entry.request_id)


def _check_terms(terms: Terms, receipt: Receipt) -> None:
    entry, teacher, price = receipt.entry, terms.teacher, terms.price
    pairs = {
        "kind": (entry.kind, "charge"),
        "ledger": (entry.ledger_id, teacher.ledger_id),
        "modality": (entry.modality, terms.modality),
        "model": (entry.model_id, teacher.id),
        "weights": (entry.weights_sha, teacher.weights_sha),
        "precision": (entry.precision, teacher.precision),
        "preprocessing": (entry.preprocessing_id, teacher.preprocessing_id),
        "price id": (entry.price_id, price.price_id),
        "unit price": (entry.unit_price_micro, price.unit_price_micro),
        "currency": (entry.currency, price.currency),
    }
    for name, (told, agreed) in pairs.items():
        if told != agreed:
            what = f"the receipt's {name} is {told}, not {agreed} as agreed"
            raise _failed_check(what, entry.request_id, VendorChanged)


def _receipts_of(delivered: Sequence[DeliveredItem], answer: EmbeddingsResponse) -> tuple[Receipt, ...]:
    """Return the receipts that paid for what was delivered; every free item must be covered by one of them."""
    paid = {(item.seq, item.item_key, item.result_sha) for item in delivered if item.status == "billed"}
    receipts = {} if answer.receipt is None else {answer.receipt.entry.seq: answer.receipt}
    for record in answer.paid_by:
        seq = record.receipt.entry.seq
        _refuse({f"it shows two receipts for entry {seq}": seq in receipts}, answer.request_id)
        receipts[seq] = record.receipt
        paid |= {(seq, item.item_key, item.result_sha) for item in record.items}
    for item in delivered:
        what = f"no receipt shows that entry {item.seq} paid for item {item.item_key[:12]}"
        _refuse({what: (item.seq, item.item_key, item.result_sha) not in paid}, answer.request_id)
    used = {item.seq for item in delivered}
    return tuple(receipt for seq, receipt in receipts.items() if seq in used)
