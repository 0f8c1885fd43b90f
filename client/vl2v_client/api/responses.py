"""From the wire's messages to the client's values; the wire stops here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from vl2v_client.api.problems import not_a_vendor
from vl2v_client.core.errors import VendorError
from vl2v_client.core.values import MAX_IMAGE_SIZE, MAX_LOGIT_SCALE, MAX_WIDTH, PriceTag, TeacherModel
from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt, RequestRecord, Statement
from vl2v_contract.vectors import FloatVector
from vl2v_contract.wire.catalogue import ModelCard
from vl2v_contract.wire.embeddings import EmbeddingsResponse
from vl2v_contract.wire.framed import unpack_answer
from vl2v_contract.wire.frames import ContractError
from vl2v_contract.wire.headers import OCTET_STREAM

Message = TypeVar("Message")


_readers: dict[object, TypeAdapter[Any]] = {}
"""Readers by message; to build one takes longer than to read a page."""


def parse(response: httpx.Response, kind: type[Message], url: str) -> Message:
    """Read a 2xx answer.

    Raises:
        VendorError: The body is no such message, so this is no vendor, or one of another version.
    """
    if kind not in _readers:
        _readers[kind] = TypeAdapter(kind)
    try:
        message: Message = _readers[kind].validate_json(response.content)
        return message
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise not_a_vendor(url, f"{response.request.url.path}: {place}: {first['msg']}") from error


def read_answer(response: httpx.Response, url: str) -> tuple[EmbeddingsResponse, Mapping[int, FloatVector] | None]:
    """Read a 2xx answer to a request for embeddings: the message, and raw vectors `[D]` by position if it is framed.

    Raises:
        VendorError: The body is neither the message nor a frame of it.
    """
    if response.headers.get("content-type") != OCTET_STREAM:
        return parse(response, EmbeddingsResponse, url), None
    try:
        return unpack_answer(response.content)
    except ContractError as error:
        raise not_a_vendor(url, f"{response.request.url.path}: {error}") from error


def teacher_of(card: ModelCard) -> TeacherModel:
    """Return the model that a card describes.

    Raises:
        VendorError: A price is missing.
    """
    sizes = (card.embedding_dim, card.image_size, card.limits.max_items, card.limits.max_request_bytes)
    possible = card.image_size <= MAX_IMAGE_SIZE and card.embedding_dim <= MAX_WIDTH
    possible = possible and 0 < card.logit_scale <= MAX_LOGIT_SCALE and abs(card.logit_bias) <= MAX_LOGIT_SCALE
    if not (possible and all(1 <= size <= MAX_INTEGER for size in sizes)):
        raise VendorError(f"the vendor's model {card.id} has a size or limit that cannot be; ask the vendor")
    return TeacherModel(
        id=card.id,
        ledger_id=card.ledger_id,
        embedding_dim=card.embedding_dim,
        image_size=card.image_size,
        preprocessing_id=card.preprocessing_id,
        context_length=card.context_length,
        logit_scale=card.logit_scale,
        logit_bias=card.logit_bias,
        weights_sha=card.weights_sha,
        precision=card.precision,
        image_price=_price_of(card, "image"),
        text_price=_price_of(card, "text"),
        max_items=card.limits.max_items,
        max_request_bytes=card.limits.max_request_bytes,
    )


def checked_receipt(receipt: Receipt) -> Receipt:
    """Return the receipt.

    Raises:
        VendorError: It holds a number that canonical JSON cannot hold, so that nothing could be verified.
    """
    _check_numbers(receipt.entry, ())
    return receipt


def checked_record(record: RequestRecord) -> RequestRecord:
    """Return the record.

    Raises:
        VendorError: It holds a number that canonical JSON cannot hold, so that nothing could be verified.
    """
    _check_numbers(record.receipt.entry, record.items)
    return record


def checked_page(page: Statement) -> Statement:
    """Return the page.

    Raises:
        VendorError: It holds a number that canonical JSON cannot hold, so that nothing could be verified.
    """
    for row in page.entries:
        _check_numbers(row.entry, row.items)
    return page


def _check_numbers(entry: LedgerEntry, items: Sequence[ChargedItem]) -> None:
    numbers = (
        entry.seq,
        entry.units,
        entry.price_id or 0,
        entry.unit_price_micro,
        entry.amount_micro,
        entry.ref_seq or 0,
        entry.used_units,
        entry.limit_units,
        entry.created_at,
        *(item.units for item in items),
    )
    if not all(0 <= number <= MAX_INTEGER for number in numbers):
        raise VendorError(f"the vendor's entry {entry.seq} holds a number that cannot be; ask the vendor")


def _price_of(card: ModelCard, modality: Modality) -> PriceTag:
    for price in card.prices:
        if price.modality == modality and max(price.price_id, price.unit_price_micro) <= MAX_INTEGER:
            return PriceTag(price.price_id, price.unit_price_micro, price.currency)
    raise VendorError(f"the vendor's model {card.id} has no price for {modality} queries; ask the vendor to set one")
