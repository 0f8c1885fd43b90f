"""From what a client sent to what is sold: every item is named, checked, decoded and hashed first.

Decoding runs in threads, beside the model and off the event loop, in turn by account (`decode_turns`). A bad item costs
nothing but its own error.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from vl2v_contract.identity import ITEM_KEY_HEX_LENGTH, Modality
from vl2v_contract.texts import is_image_address
from vl2v_vendor.domain.encoder import LargeImage, Limits, PreparedItem, Tokenizer
from vl2v_vendor.domain.errors import InvalidRequest, ItemFailure
from vl2v_vendor.observe.request_trace import timed
from vl2v_vendor.service.decode_turns import SMALL_PIXELS, DecodeTurns

if TYPE_CHECKING:
    from vl2v_vendor.images.image_decoding import PillowImageDecoder

_T = TypeVar("_T")

_ITEM_KEY = re.compile(rf"[0-9a-f]{{{ITEM_KEY_HEX_LENGTH}}}")
_MAX_IDEMPOTENCY_KEY_LENGTH = 255
_PIXELS_PER_CHARACTER: Final = 256
"""A character of a text takes at most as long as so many pixels of an image."""
_BYTES_PER_PIXEL: Final = 32
"""A pixel takes as long as the hash of so many bytes."""


def check_item_key(item_key: str) -> ItemFailure | None:
    """Return the failure of an item key that no client could have made, else None."""
    if _ITEM_KEY.fullmatch(item_key):
        return None
    return ItemFailure("invalid_item_key", f"an item key is {ITEM_KEY_HEX_LENGTH} lower-case hexadecimal digits")


def name_items(
    sent_keys: Sequence[str | None] | None, count: int, *, account_id: str, idempotency_key: str | None
) -> list[str]:
    """Return one key per item: the client's own, else one made of the `Idempotency-Key` header, else a random one.

    Raises:
        InvalidRequest: The numbers of keys and items differ, or the header is unusable.
    """
    if sent_keys is not None and len(sent_keys) != count:
        raise InvalidRequest(f"{len(sent_keys)} item keys for {count} items; send one per item, or none")
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
    message = f"vl2v-idempotency-v1\n{account_id}\n{idempotency_key or secrets.token_hex()}\n"
    return [
        hashlib.sha256(f"{message}{index}".encode()).hexdigest() if key is None else key
        for index, key in enumerate(sent_keys if sent_keys is not None else [None] * count)
    ]


def check_idempotency_key(idempotency_key: str) -> None:
    """Check the length of an `Idempotency-Key` header.

    Raises:
        InvalidRequest: The header is empty or too long.
    """
    if not 1 <= len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidRequest(f"`Idempotency-Key` has 1 to {_MAX_IDEMPOTENCY_KEY_LENGTH} characters")


_log = logging.getLogger(__name__)


ItemSource: TypeAlias = bytes | str | memoryview
"""An image as a file's bytes, their base64, or, in a memoryview, the model's RGB8 input; or a text."""


@dataclass(eq=False, slots=True)
class Preparation:
    """Checks and decodes items in threads; a request has `in_flight` items in its account's line at once."""

    decoder: "PillowImageDecoder"
    tokenizer: Tokenizer
    limits: Limits
    turns: DecodeTurns
    in_flight: int = 4

    async def prepare(
        self, modality: Modality, sources: Sequence[ItemSource], *, key: str, truncate: bool = False
    ) -> list[PreparedItem | ItemFailure]:
        """Prepare the items of one request, each to an item or its own failure, in order, in turn by account."""
        return await self._each(sources, lambda source: self._prepare(key, modality, source, truncate))

    async def name(
        self, modality: Modality, sources: Sequence[ItemSource], *, key: str, truncate: bool = False
    ) -> list[PreparedItem | str | ItemFailure]:
        """Name the contents of items (`content_sha`), without decoding files whose names do not depend on it."""
        return await self._each(sources, lambda source: self._name(key, modality, source, truncate))

    async def _each(
        self, sources: Sequence[ItemSource], work: Callable[[ItemSource], Awaitable[_T]]
    ) -> list[_T | ItemFailure]:
        """Do some work for each item; requests of one account take turns: each has `in_flight` items in its line."""
        outcomes: list[_T | ItemFailure | None] = [None] * len(sources)
        waiting = iter(enumerate(sources))

        async def work_on() -> None:
            for index, source in waiting:
                try:
                    outcomes[index] = await work(source)
                except ItemFailure as failure:
                    outcomes[index] = failure
                except Exception:
                    # A library's fault at one item must not fail its neighbours.
                    _log.exception("item %d of a request could not be prepared", index)
                    outcomes[index] = ItemFailure("encoding_failed", "the item could not be read; nothing was billed")

        if not sources:
            return []
        with timed("decode"):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.in_flight, len(sources))):
                    group.create_task(work_on())
        return [outcome for outcome in outcomes if outcome is not None]

    async def _prepare(self, key: str, modality: Modality, source: ItemSource, truncate: bool) -> PreparedItem:
        if isinstance(source, memoryview):
            return await self.turns.run(key, len(source) // 3, partial(self.decoder.from_rgb8, source))
        if isinstance(source, bytes) or modality == "image":
            return await self._decode(key, source)
        return await self.turns.run(key, _PIXELS_PER_CHARACTER * len(source), partial(self._tokenize, source, truncate))

    async def _name(self, key: str, modality: Modality, source: ItemSource, truncate: bool) -> PreparedItem | str:
        if modality == "text" or isinstance(source, memoryview):
            return await self._prepare(key, modality, source, truncate)
        name = await self.turns.run(key, len(source) // _BYTES_PER_PIXEL, partial(self._name_file, source))
        return name or await self._decode(key, source)

    async def _decode(self, key: str, source: bytes | str) -> PreparedItem:
        """Decode an image in one turn if it is small, else in a second one that counts its pixels."""
        try:
            item = await self.turns.run(key, SMALL_PIXELS, partial(self._decode_file, source, SMALL_PIXELS))
        except LargeImage as image:
            self.turns.give_back(key, SMALL_PIXELS)
            return await self.turns.run(key, image.pixels, partial(self._decode_file, source))
        self.turns.give_back(key, SMALL_PIXELS - item.pixels)
        return item

    def _decode_file(self, source: bytes | str, small_pixels: int | None = None) -> PreparedItem:
        return self.decoder.decode(self._file(source), small_pixels)

    def _name_file(self, source: bytes | str) -> str | None:
        return self.decoder.name_of_bytes(self._file(source))

    def _tokenize(self, text: str, truncate: bool) -> PreparedItem:
        self._check_text(text)
        return self.tokenizer.tokenize(text, truncate=truncate)

    def _file(self, source: bytes | str) -> bytes:
        return source if isinstance(source, bytes) else self._from_base64(source)

    def _from_base64(self, text: str) -> bytes:
        if len(text) // 4 * 3 > self.limits.max_item_bytes + 2:
            raise ItemFailure(
                "image_too_large", f"the file has more than {self.limits.max_item_bytes:,} bytes; scale it down"
            )
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ItemFailure(
                "invalid_encoding", "`image` is not valid base64; encode the file's bytes, without a data URI prefix"
            ) from None

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise ItemFailure("empty_item", "the text is empty; leave the item out")
        if is_image_address(text):
            raise ItemFailure(
                "invalid_encoding",
                "the text is the URL of an image, and nothing is fetched here; send the file itself as an image",
            )
        try:
            size_bytes = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise ItemFailure("invalid_encoding", "the text holds a lone surrogate; send valid Unicode") from None
        if size_bytes > self.limits.max_text_bytes:
            raise ItemFailure(
                "text_too_long",
                f"the text has {size_bytes:,} bytes and at most {self.limits.max_text_bytes:,} are read; shorten it",
            )
