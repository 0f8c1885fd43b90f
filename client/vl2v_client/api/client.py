"""The vendor as the client sees it: models, embeddings, and the bill."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from vl2v_client.api.checks import Order, all_failed, check_answer
from vl2v_client.api.connection import DEFAULT_TIMEOUT, Connection
from vl2v_client.api.keyring import Keyring
from vl2v_client.api.problems import AllItemsFailed
from vl2v_client.api.responses import Message, checked_page, parse, read_answer, teacher_of
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.api.uploads import ACCEPT_VECTORS, ImageForm, Upload, choose_form, image_content
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import VendorError
from vl2v_client.core.values import TeacherModel
from vl2v_contract.records import PublicKeys, Statement, Summary
from vl2v_contract.wire.catalogue import ModelCard, ModelList
from vl2v_contract.wire.embeddings import (
    EmbeddingsResponse,
    ReplayRequest,
    RequestOptions,
    TextItem,
    TextsRequest,
)

STATEMENT_PAGE_ENTRIES = 500


class VendorClient:
    """One vendor, over HTTP. Thread-safe. Making one sends nothing.

    Every delivery is checked before it is returned; receipts against the keys of `trusted_keys`, which are
    otherwise fetched, unpinned, when first needed.

    Args:
        url: The vendor's base URL.
        api_key: The account's key; never shown.
        transport: Replaces the network, in tests.
        timeout: Seconds for connecting and between bytes.
        policy: When to send again.
        sleep: Wait between attempts, in seconds.
        rng: Source of the jitter.
        upload: Form in which images are sent.

    Raises:
        UsageError: The URL is not one.
        NotAuthorized: The key cannot be a key.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: httpx.Timeout = DEFAULT_TIMEOUT,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], object] | None = None,
        rng: random.Random | None = None,
        upload: Upload = "auto",
    ) -> None:
        self._upload = upload
        self._image_uploads: dict[str, tuple[str, ...]] = {}
        self._connection = Connection(
            url, api_key, transport=transport, timeout=timeout, policy=policy, sleep=sleep, rng=rng
        )
        self._lock = threading.Lock()
        self._keyring: Keyring | None = None

    def __enter__(self) -> VendorClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The vendor's base URL."""
        return self._connection.url

    @property
    def exposes_key(self) -> bool:
        """Whether the API key travels unencrypted beyond this machine."""
        return self._connection.exposes_key

    @property
    def keyring(self) -> Keyring | None:
        """The keys that receipts are checked against; None before they were first needed."""
        with self._lock:
            return self._keyring

    def close(self) -> None:
        """Close the sockets."""
        self._connection.close()

    def cancel(self) -> None:
        """Let no request start any more and wake those that wait; for Ctrl-C."""
        self._connection.cancel()

    def trusted_keys(self, first_key_of: Callable[[str], str | None]) -> Keyring:
        """Fetch the vendor's public keys and check receipts against them from now on.

        Args:
            first_key_of: The pinned first key of a ledger id; None if this vendor is new.

        Raises:
            VendorChanged: The keys do not descend from the pinned one.
        """
        published = self.public_keys()
        keyring = Keyring(published.ledger_id, published.keys, pinned=first_key_of(published.ledger_id))
        with self._lock:
            self._keyring = keyring
        return keyring

    # What is on sale

    def model(self, model_id: str | None = None) -> TeacherModel:
        """Return the model of that id, or the vendor's default."""
        card = self._card(model_id)
        with self._lock:
            self._image_uploads[card.id] = card.image_uploads
        return teacher_of(card)

    def image_form(self, teacher: TeacherModel) -> ImageForm:
        """Return the form in which this model's images are best sent: RGB8 pixels at its input size, or PNG files."""
        return choose_form(self._upload, self._offered_uploads(teacher), self.url)

    # Buying

    def embed_images(
        self,
        images: Sequence[bytes],
        item_keys: Sequence[str],
        teacher: TeacherModel,
        *,
        form: ImageForm = "png",
        allow_partial: bool = True,
        is_free: bool = False,
    ) -> Delivery:
        """Buy the embeddings of images; those paid before come free.

        Args:
            images: The bytes of PNG files, or of RGB8 pixels `[S, S, 3]`.
            item_keys: One per image; the same on every attempt, now and after a crash.
            teacher: The model and price agreed to; the vendor is held to both.
            form: Form of the images; pixels only if `image_form` says so.
            allow_partial: Take as many as the budget admits instead of none.
            is_free: Whether all were charged before, so nothing is paid for any of them now.

        Raises:
            BudgetExhausted: The budget admits none (or not all, without `allow_partial`); nothing was billed.
            VendorChanged: The price, model or signing key is not the one agreed to.
            VendorUnavailable: No final answer; whatever was billed comes free under the same item keys.
            VendorError: Refused, or the answer fails a check.
        """
        terms = self._terms(teacher, "image", 0 if is_free else len(images), allow_partial=allow_partial)
        options = RequestOptions(**terms, item_keys=list(item_keys))
        order = Order(tuple(item_keys), "image", teacher, teacher.embedding_dim, is_free)
        content = image_content(options, images, form, self._offered_uploads(teacher))
        return self._embed("/v1/embeddings/images", order, **content)

    def embed_texts(
        self,
        texts: Sequence[str],
        item_keys: Sequence[str],
        teacher: TeacherModel,
        *,
        allow_partial: bool = True,
        is_free: bool = False,
    ) -> Delivery:
        """Buy the embeddings of texts; as `embed_images`."""
        items = [TextItem(text=text, item_key=key) for text, key in zip(texts, item_keys, strict=True)]
        terms = self._terms(teacher, "text", 0 if is_free else len(texts), allow_partial=allow_partial)
        body = TextsRequest(**terms, items=items, truncate=False)
        order = Order(tuple(item_keys), "text", teacher, teacher.embedding_dim, is_free)
        content = {"json": body.model_dump(exclude_none=True), "headers": ACCEPT_VECTORS}
        return self._embed("/v1/embeddings/texts", order, **content)

    def replay(self, item_keys: Sequence[str]) -> Delivery:
        """Fetch paid vectors again, free, while the vendor keeps them; others come back as failed items."""
        body = ReplayRequest(item_keys=list(item_keys), dtype="float16")
        content = {"json": body.model_dump(exclude_none=True), "headers": ACCEPT_VECTORS}
        return self._embed("/v1/embeddings/replay", Order(tuple(item_keys)), **content)

    # The bill

    def summary(self) -> Summary:
        """Return the account's totals, as the vendor tells them."""
        return self._get("/v1/billing/summary", Summary)

    def statement_pages(self, after_seq: int = 0) -> Iterator[Statement]:
        """Yield the account's chain from `after_seq` on, page by page, as the vendor tells it; nothing is checked.

        Raises:
            VendorError: A page that holds nothing, or does not go forward, or goes on beyond the signed head: no end.
        """
        next_after: int | None = after_seq
        while next_after is not None:
            page = self._statement_page(next_after, STATEMENT_PAGE_ENTRIES)
            yield page
            if page.next_after_seq is not None and not (
                page.entries and next_after < page.next_after_seq < page.signed_head.head.seq
            ):
                raise VendorError(f"the vendor's statement does not go on after entry {next_after}; ask the vendor")
            next_after = page.next_after_seq

    def public_keys(self) -> PublicKeys:
        """Return the vendor's public signing keys, as published."""
        return self._get("/v1/billing/keys", PublicKeys)

    def _terms(self, teacher: TeacherModel, modality: str, units: int, *, allow_partial: bool) -> dict[str, Any]:
        price = teacher.image_price if modality == "image" else teacher.text_price
        return {
            "model": teacher.id,
            "dtype": "float16",
            "price_id": price.price_id,
            "max_charge_micro": units * price.unit_price_micro,
            "allow_partial": allow_partial,
        }

    def _embed(self, path: str, order: Order, **content: Any) -> Delivery:
        keyring = self._trusted()
        try:
            response = self._connection.request("POST", path, **content)
        except AllItemsFailed as refusal:
            return all_failed(order, refusal)
        try:
            answer, vectors = read_answer(response, self.url)
            if any(key_id not in keyring for key_id in _signing_keys(answer)):
                keyring = self.trusted_keys(_pinned_by(keyring))
            return check_answer(order, answer, keyring, vectors)
        except VendorError as error:
            error.was_refused = False  # the request was answered: what it charged stays charged
            raise

    def _card(self, model_id: str | None) -> ModelCard:
        if model_id is not None:
            return self._get(f"/v1/models/{quote(model_id)}", ModelCard)
        cards = self._get("/v1/models", ModelList).data
        if not cards:
            raise VendorError(f"the vendor at {self.url} has no model on sale; ask the vendor")
        return cards[0]

    def _offered_uploads(self, teacher: TeacherModel) -> tuple[str, ...]:
        """Return media types in which the vendor reads images, asked once."""
        with self._lock:
            known = self._image_uploads.get(teacher.id)
        if known is None:
            known = self._card(teacher.id).image_uploads
            with self._lock:
                self._image_uploads[teacher.id] = known
        return known

    def _statement_page(self, after_seq: int, limit: int) -> Statement:
        query = {"after_seq": after_seq, "limit": limit}
        return checked_page(self._get("/v1/billing/statement", Statement, params=query))

    def _trusted(self) -> Keyring:
        return self.keyring or self.trusted_keys(_unpinned)

    def _get(self, path: str, kind: type[Message], params: dict[str, int] | None = None) -> Message:
        return parse(self._connection.request("GET", path, params=params), kind, self.url)


def _unpinned(_ledger_id: str) -> None:
    """Return the error of a vendor whose first key is not known."""


def _pinned_by(keyring: Keyring) -> Callable[[str], str | None]:
    """Return a key rotation must leave the first key as it is."""
    return lambda _ledger_id: keyring.first


def _signing_keys(answer: EmbeddingsResponse) -> set[str]:
    """Return ids of the keys that signed an answer's receipts and notes."""
    receipts = [paid.receipt for paid in answer.paid_by] + ([answer.receipt] if answer.receipt is not None else [])
    notes = {item.recompute.note.key_id for item in answer.data if item.recompute is not None}
    return notes | {receipt.key_id for receipt in receipts}
