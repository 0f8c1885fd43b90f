"""From the wire's messages to the client's values; the wire stops here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from vl2v_client.api.problems import not_a_vendor
from vl2v_client.core.deliveries import PublishedKey, SignedReceipt
from vl2v_client.core.errors import VendorError
from vl2v_client.core.values import MAX_IMAGE_SIZE, MAX_LOGIT_SCALE, MAX_WIDTH, PriceTag, TeacherModel
from vl2v_contract.canonical import MAX_INTEGER, JSONValue
from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_contract.identity import Modality
from vl2v_contract.vectors import FloatVector
from vl2v_contract.wire.billing import PublicKeys, Receipt, RequestRecord, Statement, Summary
from vl2v_contract.wire.catalogue import ModelCard
from vl2v_contract.wire.embeddings import EmbeddingsResponse
from vl2v_contract.wire.framed import unpack_answer
from vl2v_contract.wire.frames import ContractError
from vl2v_contract.wire.headers import OCTET_STREAM

Message = TypeVar("Message", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Account:
    """The bill at a glance, as the vendor tells it.

    Attributes:
        units: Charged less refunded.
        head_seq: Number of the entry that it was computed at.
    """

    ledger_id: str
    account_id: str
    api_key_id: str
    currency: str
    limit_units: int
    used_units: int
    remaining_units: int
    units: int
    amount_micro: int
    head_seq: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One entry of the account's chain as the vendor shows it; nothing of it is checked yet."""

    entry: LedgerEntry
    entry_hash: str
    items: tuple[ChargedItem, ...]


@dataclass(frozen=True, slots=True)
class StatementPage:
    """Rows in the vendor's order, and its signed claim about the end of the chain.

    Attributes:
        head: The signed fields, as signed.
        next_after_seq: Start of the next page; None after the last.
    """

    rows: tuple[StatementRow, ...]
    head: Mapping[str, JSONValue]
    head_signature: str
    next_after_seq: int | None

    @property
    def head_seq(self) -> int:
        """The last entry of the chain, by the signed head."""
        return int(str(self.head["seq"]))


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The vendor's public signing keys, oldest first, as published."""

    ledger_id: str
    keys: tuple[PublishedKey, ...]


@dataclass(frozen=True, slots=True)
class PaidRecord:
    """One billed request: its receipt and items."""

    receipt: SignedReceipt
    items: tuple[ChargedItem, ...]


def parse(response: httpx.Response, kind: type[Message], url: str) -> Message:
    """Read a 2xx answer.

    Raises:
        VendorError: The body is no such message, so this is no vendor, or one of another version.
    """
    try:
        return kind.model_validate_json(response.content)
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


def account_of(summary: Summary) -> Account:
    """Return the account that a summary describes."""
    return Account(
        summary.ledger_id,
        summary.account_id,
        summary.api_key_id,
        summary.currency,
        summary.limit_units,
        summary.used_units,
        summary.remaining_units,
        summary.total.units,
        summary.total.amount_micro,
        summary.head_seq,
        summary.head_hash,
    )


def keys_of(published: PublicKeys) -> PublishedKeys:
    """Return the keys of `/v1/billing/keys`."""
    return PublishedKeys(published.ledger_id, tuple(PublishedKey(**key.model_dump()) for key in published.keys))


def receipt_of(receipt: Receipt) -> SignedReceipt:
    """Return a receipt without the wire.

    Raises:
        VendorError: A number that canonical JSON cannot hold, so that nothing could be verified.
    """
    _check_numbers(receipt.entry, ())
    return SignedReceipt(receipt.entry, receipt.entry_hash, receipt.key_id, receipt.signature)


def record_of(record: RequestRecord) -> PaidRecord:
    """Return a request record without the wire; raises as `receipt_of`."""
    _check_numbers(record.receipt.entry, record.items)
    return PaidRecord(receipt_of(record.receipt), tuple(record.items))


def page_of(statement: Statement) -> StatementPage:
    """Return a statement page without the wire; raises as `receipt_of`."""
    signed = statement.signed_head
    for row in statement.entries:
        _check_numbers(row.entry, row.items)
    rows = tuple(StatementRow(row.entry, row.entry_hash, tuple(row.items)) for row in statement.entries)
    return StatementPage(rows, signed.head.model_dump(), signed.signature, statement.next_after_seq)


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
