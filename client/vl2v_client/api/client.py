"""The vendor as the client sees it: models, embeddings, and the bill."""

import ipaddress
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from vl2v_client.api.bounded import MAX_MESSAGE_BYTES, MAX_SUMMARY_BYTES, embeddings_bytes, statement_bytes
from vl2v_client.api.checks import Terms, all_failed, check_answer
from vl2v_client.api.connection import Connection
from vl2v_client.api.keyring import Keyring
from vl2v_client.api.responses import AllItemsFailed, Message, check_numbers, parse, read_answer, teacher_of
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import NotAuthorized, VendorError
from vl2v_client.core.values import TeacherModel
from vl2v_contract.records import PublicKeys, SignedStatement, Statement, StatementEntry, Summary
from vl2v_contract.wire.embeddings import (
    EmbeddingsResponse,
    ModelCard,
    ModelList,
    ReplayRequest,
    RequestOptions,
    TextItem,
    TextsRequest,
)
from vl2v_contract.wire.errors import ErrorCode
from vl2v_contract.wire.frames import pack_upload
from vl2v_contract.wire.headers import JSON, OCTET_STREAM, RGB8_TENSOR

STATEMENT_PAGE_ENTRIES = 500

Page = TypeVar("Page", bound=Statement)

ImageForm: TypeAlias = Literal["rgb8", "png"]
"""Pixels as they are, 150 kB at 224 x 224, or PNG, of a photograph about 90 kB, which takes 5 ms to write and read."""

Upload: TypeAlias = Literal["auto", "raw", "png"]  # what the user wants; `auto` goes by how far away the vendor is

UPLOADS: Final[tuple[Upload, ...]] = ("auto", "raw", "png")

_ACCEPT_VECTORS: Final = {"Accept": f"{OCTET_STREAM}, {JSON};q=0.9"}
"""Raw vectors from a vendor that knows them; another answers JSON."""


class VendorClient(Connection):
    """One vendor, over HTTP. Thread-safe. Making one sends nothing.

    Every delivery is checked before it is returned; receipts against the keys of `trusted_keys`, which are
    otherwise fetched, unpinned, when first needed.

    Attributes:
        keyring: The keys that receipts are checked against; None before they were first needed.

    Args:
        url: As `Connection` takes it; so are `api_key` and the other options.
        upload: Form in which images are sent.
    """

    def __init__(self, url: str, api_key: str | None, *, upload: Upload = "auto", **options: Any) -> None:
        super().__init__(url, api_key, **options)
        self._upload = upload
        self._image_uploads: dict[str, tuple[str, ...]] = {}
        self.keyring: Keyring | None = None

    def trusted_keys(self, first_key_of: Callable[[str], str | None]) -> Keyring:
        """Fetch the vendor's public keys and check receipts against them from now on.

        Args:
            first_key_of: The pinned first key of a ledger id; None if this vendor is new.

        Raises:
            VendorChanged: The keys do not descend from the pinned one.
        """
        published = self._get("/v1/billing/keys", PublicKeys)
        self.keyring = Keyring(published.ledger_id, published.keys, pinned=first_key_of(published.ledger_id))
        return self.keyring

    # What is on sale

    def model(self, model_id: str | None = None) -> TeacherModel:
        """Return the model of that id, or the vendor's default."""
        return teacher_of(self._card(model_id))

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
        is_free: bool = False,
    ) -> Delivery:
        """Buy the embeddings of images, as many as the budget admits; those paid before come free.

        Args:
            images: The bytes of PNG files, or of RGB8 pixels `[S, S, 3]`.
            item_keys: One per image; the same on every attempt, now and after a crash.
            teacher: The model and price agreed to; the vendor is held to both.
            form: Form of the images; pixels only if `image_form` says so.
            is_free: Whether all were charged before, so nothing is paid for any of them now.

        Raises:
            BudgetExhausted: The budget admits none; nothing was billed.
            VendorChanged: The price, model or signing key is not the one agreed to.
            VendorUnavailable: No final answer; whatever was billed comes free under the same item keys.
            VendorError: Refused, or the answer fails a check.
        """
        terms = Terms("image", teacher, is_free)
        options = RequestOptions(**terms.options(len(images)), item_keys=list(item_keys))
        content = _image_content(options, images, form, self._offered_uploads(teacher))
        return self._embed("images", item_keys, terms, **content)

    def embed_texts(
        self, texts: Sequence[str], item_keys: Sequence[str], teacher: TeacherModel, *, is_free: bool = False
    ) -> Delivery:
        """Buy the embeddings of texts; as `embed_images`."""
        terms = Terms("text", teacher, is_free)
        items = [TextItem(text=text, item_key=key) for text, key in zip(texts, item_keys, strict=True)]
        body = TextsRequest(**terms.options(len(texts)), items=items, truncate=False).model_dump(exclude_none=True)
        return self._embed("texts", item_keys, terms, json=body, headers=_ACCEPT_VECTORS)

    def replay(self, item_keys: Sequence[str]) -> Delivery:
        """Fetch paid vectors again, free, while the vendor keeps them; others come back as failed items."""
        body = ReplayRequest(item_keys=list(item_keys), dtype="float16").model_dump(exclude_none=True)
        return self._embed("replay", item_keys, None, json=body, headers=_ACCEPT_VECTORS)

    def check_may_buy(self) -> None:
        """Ask, free, whether the API key may buy: for the answer of an item that nobody has bought.

        Raises:
            NotAuthorized: There is no key, or the vendor refuses it, or it may do other things alone.
            VendorError: The vendor does not answer, or as it should not.
        """
        try:
            self.replay([secrets.token_hex(32)])
        except NotAuthorized as error:
            if error.code != str(ErrorCode.FORBIDDEN):
                raise
            raise NotAuthorized(
                "the API key lacks the scope `embed`, so it may not buy, and nothing was bought: ask the vendor for a "
                "key with this scope, and set VL2V_API_KEY to it",
                code=error.code,
                request_id=error.request_id,
            ) from error

    # The bill

    def summary(self) -> Summary:
        """Return the account's totals, as the vendor tells them."""
        return self._get("/v1/billing/summary", Summary, MAX_SUMMARY_BYTES)

    def entries(self, after_seq: int, limit: int) -> tuple[StatementEntry, ...]:
        """Return at most `limit` entries after a number, as the vendor tells them; no hash is checked.

        Raises:
            VendorError: A number that cannot be, or more entries than were asked for.
        """
        return self._statement_page(after_seq, limit).entries

    def statement_pages(self) -> Iterator[Statement]:
        """Yield the account's chain, page by page, as the vendor tells it; no hash is checked.

        Raises:
            VendorError: A number that cannot be; or a page that holds nothing, or more than was asked for, or does not
                go forward, or goes on beyond the signed head: no end.
        """
        return self._pages(self._statement_page)

    def signed_pages(self) -> Iterator[SignedStatement]:
        """Yield the same with each entry's signature, as stored; entries behind the last that is signed are shown too.

        Raises:
            VendorError: As `statement_pages`; or another number of signatures than of entries.
        """
        return self._pages(self._signed_page)

    def _pages(self, read: Callable[[int, int], Page]) -> Iterator[Page]:
        after: int | None = 0
        while after is not None:
            page = read(after, STATEMENT_PAGE_ENTRIES)
            yield page
            following = page.next_after_seq
            if following is not None and not (page.entries and after < following < page.signed_head.head.seq):
                raise VendorError(f"the vendor's statement does not go on after entry {after}; ask the vendor")
            after = following

    def _statement_page(self, after_seq: int, limit: int) -> Statement:
        return self._page(Statement, {"after_seq": after_seq, "limit": limit})

    def _signed_page(self, after_seq: int, limit: int) -> SignedStatement:
        page = self._page(SignedStatement, {"after_seq": after_seq, "limit": limit, "signed": True})
        if page.signatures is not None and len(page.signatures) != len(page.entries):
            raise VendorError("the vendor's statement has another number of signatures than of entries; ask the vendor")
        return page

    def _page(self, kind: type[Page], query: dict[str, int]) -> Page:
        limit = query["limit"]
        page = self._get("/v1/billing/statement", kind, statement_bytes(limit), query)
        if len(page.entries) > limit:
            raise VendorError(f"the vendor's statement has a page of {len(page.entries)} entries; ask the vendor")
        for row in page.entries:
            check_numbers(row.entry, row.items)
        return page

    def _embed(self, path: str, item_keys: Sequence[str], terms: Terms | None, **content: Any) -> Delivery:
        keyring = self.keyring or self.trusted_keys(lambda _ledger_id: None)
        most = embeddings_bytes(len(item_keys), *([] if terms is None else [terms.teacher.embedding_dim]))
        try:
            response = self.request("POST", f"/v1/embeddings/{path}", most, **content)
        except AllItemsFailed as refusal:
            return all_failed(item_keys, refusal)
        try:
            answer, vectors = read_answer(response, self.url)
            if any(key_id not in keyring for key_id in _signing_keys(answer)):
                first_key = keyring.keys[0].public_key  # a rotation of keys must leave it as it is
                keyring = self.trusted_keys(lambda _ledger_id: first_key)
            return check_answer(item_keys, terms, answer, keyring, vectors)
        except VendorError as error:
            error.was_refused = False  # the request was answered: what it charged stays charged
            raise

    def _card(self, model_id: str | None) -> ModelCard:
        cards = (
            self._get("/v1/models", ModelList).data
            if model_id is None
            else [self._get(f"/v1/models/{quote(model_id)}", ModelCard)]
        )
        if not cards:
            raise VendorError(f"the vendor at {self.url} has no model on sale; ask the vendor")
        self._image_uploads[model_id or cards[0].id] = cards[0].image_uploads
        return cards[0]

    def _offered_uploads(self, teacher: TeacherModel) -> tuple[str, ...]:
        """Return media types in which the vendor reads images, asked once."""
        if teacher.id not in self._image_uploads:
            self._card(teacher.id)
        return self._image_uploads[teacher.id]

    def _get(
        self,
        path: str,
        kind: type[Message],
        max_bytes: int = MAX_MESSAGE_BYTES,
        params: dict[str, int] | None = None,
    ) -> Message:
        return parse(self.request("GET", path, max_bytes, params=params), kind, self.url)


def choose_form(upload: Upload, offered: Collection[str], url: str) -> ImageForm:
    """Return the cheapest of the forms `offered` for this vendor: pixels to a neighbour, PNG over the internet.

    What PNG saves takes longer to write and read than to send from about 100 Mbit/s on.
    """
    if RGB8_TENSOR not in offered or upload == "png":
        return "png"
    return "rgb8" if upload == "raw" or is_near(url) else "png"


def is_near(url: str) -> bool:
    """Return whether an address is this machine's or its own network's: nothing is resolved."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan", ".localhost"))


def _image_content(
    options: RequestOptions, images: Sequence[bytes], form: ImageForm, offered: Collection[str]
) -> dict[str, Any]:
    """Return a request's content as `httpx` takes it; a vendor that reads no frames gets a multipart form."""
    media_type = RGB8_TENSOR if form == "rgb8" else OCTET_STREAM
    if media_type in offered:
        return {"content": pack_upload(options, images), "headers": {**_ACCEPT_VECTORS, "Content-Type": media_type}}
    files = [("images", (f"{index}.png", data, "image/png")) for index, data in enumerate(images)]
    return {"files": files, "data": {"options": options.model_dump_json(exclude_none=True)}, "headers": _ACCEPT_VECTORS}


def _signing_keys(answer: EmbeddingsResponse) -> set[str]:
    """Return ids of the keys that signed an answer's receipts and notes."""
    receipts = [paid.receipt for paid in answer.paid_by] + ([answer.receipt] if answer.receipt is not None else [])
    notes = {item.recompute.note.key_id for item in answer.data if item.recompute is not None}
    return notes | {receipt.key_id for receipt in receipts}
